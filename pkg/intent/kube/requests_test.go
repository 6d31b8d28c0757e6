package kube

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestPodRequests(t *testing.T) {
	const fast = "portolan.io/fast"
	container := func(n string) corev1.Container {
		return corev1.Container{Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{fast: resource.MustParse(n)}}}
	}
	always := corev1.ContainerRestartPolicyAlways
	sidecar := container("1")
	sidecar.RestartPolicy = &always
	only := corev1.Container{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{fast: resource.MustParse("3")}}}
	for name, test := range map[string]struct {
		spec corev1.PodSpec
		want int64
	}{
		"none":        {corev1.PodSpec{Containers: []corev1.Container{{}}}, 0},
		"two":         {corev1.PodSpec{Containers: []corev1.Container{container("1"), container("2")}}, 3},
		"requests":    {corev1.PodSpec{Containers: []corev1.Container{only}}, 3},
		"first one":   {corev1.PodSpec{InitContainers: []corev1.Container{container("4")}, Containers: []corev1.Container{container("1")}}, 4},
		"with a side": {corev1.PodSpec{InitContainers: []corev1.Container{sidecar, container("1")}, Containers: []corev1.Container{container("1")}}, 2},
	} {
		client := fake.NewClientset(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: test.spec})
		got, err := PodRequests(t.Context(), client, "ns", "p")
		if err != nil || got[fast] != test.want {
			t.Errorf("%s: %d, %v; want %d", name, got[fast], err, test.want)
		}
	}
	if _, err := PodRequests(t.Context(), fake.NewClientset(), "ns", "p"); err == nil {
		t.Error("a pod that is not there requests something")
	}
}
