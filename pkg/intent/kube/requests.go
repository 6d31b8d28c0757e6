package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PodRequests asks how many of each resource that nodes extend themselves by a pod
// requests: what its containers do together, or one that runs before them alone if that
// is more.
func PodRequests(ctx context.Context, client Client, namespace, name string) (map[string]int64, error) {
	p, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return requests(p.Spec), nil
}

// requests of a pod; a limit stands for a request that is not given.
func requests(s corev1.PodSpec) map[string]int64 {
	together, before := map[string]int64{}, map[string]int64{}
	of := func(c corev1.Container, note func(name string, n int64)) {
		for name, q := range c.Resources.Limits {
			note(string(name), q.Value())
		}
		for name, q := range c.Resources.Requests {
			if _, limited := c.Resources.Limits[name]; !limited {
				note(string(name), q.Value())
			}
		}
	}
	add := func(name string, n int64) { together[name] += n }
	for _, c := range s.Containers {
		of(c, add)
	}
	for _, c := range s.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			of(c, add)
			continue
		}
		of(c, func(name string, n int64) { before[name] = max(before[name], n) })
	}
	for name, n := range before {
		together[name] = max(together[name], n)
	}
	return together
}
