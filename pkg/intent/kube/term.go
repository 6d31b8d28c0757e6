package kube

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ManagerLease is the Lease by which portolan-managers elect the one that leads.
const ManagerLease = "portolan-manager"

// ReadTerm is when the manager that leads last said so: it changes every few seconds
// while one leads, and stands still while none does. Two answers compared need no
// clock that agrees with the manager's.
func ReadTerm(ctx context.Context, client Client, namespace string) (string, error) {
	lease, err := client.CoordinationV1().Leases(namespace).Get(ctx, ManagerLease, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("the Lease %s/%s: %w", namespace, ManagerLease, err)
	}
	if lease.Spec.RenewTime == nil || lease.Spec.HolderIdentity == nil {
		return "", fmt.Errorf("the Lease %s/%s is nobody's", namespace, ManagerLease)
	}
	return *lease.Spec.HolderIdentity + " " + lease.Spec.RenewTime.UTC().Format(time.RFC3339Nano), nil
}
