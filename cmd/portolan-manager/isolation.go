package main

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// isolationName is the ConfigMap that the admission policy portolan-isolation asks:
// it is there while the Cluster file has namespaceIsolation on.
const isolationName = "portolan-isolation"

// isolationPause is how often it is looked at.
const isolationPause = time.Minute

// isolator keeps that ConfigMap as the Cluster file has it, so that there is one switch.
type isolator struct {
	client    kube.Client
	namespace string
	on        bool
	shared    []string
	log       *slog.Logger
}

// run keeps it until ctx ends.
func (i *isolator) run(ctx context.Context) {
	for {
		pause := isolationPause
		if err := i.round(ctx); err != nil && ctx.Err() == nil {
			i.log.Warn("the admission policy's switch of namespaceIsolation is not set, will retry", "configmap", isolationName, "err", err)
			pause = tryAgain
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (i *isolator) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	objects := i.client.CoreV1().ConfigMaps(i.namespace)
	have, err := objects.Get(ctx, isolationName, metav1.GetOptions{})
	there := err == nil
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	want := map[string]string{"sharedNamespaces": strings.Join(i.shared, ",")}
	switch {
	case there && !i.on:
		err = objects.Delete(ctx, isolationName, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}})
		if apierrors.IsNotFound(err) {
			err = nil
		}
	case !there && i.on:
		_, err = objects.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: isolationName}, Data: want}, metav1.CreateOptions{})
	case there && !maps.Equal(have.Data, want):
		have.Data = want
		_, err = objects.Update(ctx, have, metav1.UpdateOptions{})
	default:
		return nil
	}
	if err == nil {
		i.log.Info("namespaceIsolation told to the admission policy", "on", i.on, "shared", i.shared)
	}
	return err
}
