// Package site answers: which of this machine's labs is meant? There is one
// without a name, and beside it as many as have one: the environment variable
// PORTOLAN_LAB names the lab that a command, or a test, is about. Labs share the
// cache and nothing else: each has its own network namespaces, cgroups, state and
// mount points, all of whose names begin with Base.
package site

import (
	"fmt"
	"os"
	"regexp"
)

// variable names the lab; empty or unset: the one without a name.
const variable = "PORTOLAN_LAB"

// Base begins the name of everything of the lab: "portolan", or "portolan_NAME",
// so that no lab's names begin as another's do.
func Base() string {
	if name := os.Getenv(variable); name != "" {
		return "portolan_" + name
	}
	return "portolan"
}

// Check refuses a name that could not be part of a path, a cgroup and a namespace.
func Check() error {
	if name := os.Getenv(variable); !regexp.MustCompile(`^[a-z0-9]{0,12}$`).MatchString(name) {
		return fmt.Errorf("%s is %q: want at most twelve of a-z and 0-9", variable, name)
	}
	return nil
}
