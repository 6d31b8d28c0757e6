// Package plugintest plays the kubelet's device manager over real gRPC and unix
// sockets. Input: device plugins that register with it, pods that are admitted. Output:
// what the kubelet would know, give and answer, by its device plugin API and its
// pod-resources API; it refuses what the kubelet refuses.
package plugintest
