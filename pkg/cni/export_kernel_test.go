//go:build kernel

package cni

import "context"

// RevealNow does at once what Run does a second later.
func (a *Agent) RevealNow(ctx context.Context) { a.reveal(ctx) }
