package offload

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Connections counts what the kernel tracks, by who moves the packets. OVN's
// connections are in the kernel's table where the datapath is the kernel's.
type Connections struct {
	Known    bool `json:"known"` // false: this kernel lists none
	All      int  `json:"all"`
	Hardware int  `json:"hardware"` // [HW_OFFLOAD]
	Software int  `json:"software"` // [OFFLOAD]: in a flow table, in software
}

// mostConnections bounds the lines that are read of the kernel's list.
const mostConnections = 1 << 20

// Connections reads /proc/net/nf_conntrack. It takes the kernel some microseconds a
// connection, so it is for a person who asks, and not for every few seconds.
func (m *Machine) Connections() (Connections, error) {
	f, err := os.Open(filepath.Join(m.Proc, "net/nf_conntrack"))
	if errors.Is(err, fs.ErrNotExist) {
		return Connections{}, nil
	}
	if err != nil {
		return Connections{}, fmt.Errorf("connections: %w", err)
	}
	defer f.Close()
	return countConnections(f)
}

func countConnections(r io.Reader) (Connections, error) {
	c := Connections{Known: true}
	lines := bufio.NewScanner(r)
	for lines.Scan() && c.All < mostConnections {
		c.All++
		switch line := lines.Bytes(); {
		case bytes.Contains(line, []byte("[HW_OFFLOAD]")):
			c.Hardware++
		case bytes.Contains(line, []byte("[OFFLOAD]")):
			c.Software++
		}
	}
	if err := lines.Err(); err != nil {
		return c, fmt.Errorf("connections: %w", err)
	}
	return c, nil
}
