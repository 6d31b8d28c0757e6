package main

import (
	"strings"
	"testing"
)

func TestUnknownFlagsAreRefused(t *testing.T) {
	for args, want := range map[string]string{
		"--gateway-takeover=force":           "unknown flag: --gateway-takeover",
		"--node-name=n surplus":              `unknown command "surplus"`,
		"--node-name=n --node-ip=10.0.0.256": "--node-ip",
		"":                                   "--node-name is missing: it must be the name of this machine's Node object",
	} {
		c := command()
		c.SetArgs(strings.Fields(args))
		if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}
