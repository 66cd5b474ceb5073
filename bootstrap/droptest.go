package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// ErrOldNode means that a node's program is older than this one, and does not know what it is asked.
var ErrOldNode = errors.New("the node's kuryr-node is of another version")

// DropTest tries on a worker whether a connection passes from one subport of its trunk to another.
func DropTest(ctx context.Context, client *ssh.Client, t vif.DropTest) (vif.Passage, error) {
	request, err := json.Marshal(t)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(t.Seconds)*time.Second+inTime)
	defer cancel()
	out, err := client.Run(ctx, ssh.Command{Line: "# try a connection between two subports\nPATH=/usr/local/bin:$PATH\nkuryr-node droptest", Stdin: bytes.NewReader(request), Sudo: true})
	if failed := (*ssh.RunError)(nil); errors.As(err, &failed) && (failed.Status == 2 || failed.Status == 127) {
		return "", ErrOldNode
	}
	if err != nil {
		return "", err
	}
	switch p := vif.Passage(strings.TrimSpace(out.Stdout)); p {
	case vif.Passed, vif.Dropped, vif.Unreachable:
		return p, nil
	}
	return "", fmt.Errorf("reading what kuryr-node says of a connection: %q", out.Stdout)
}

// inTime is what a test may take on top of the time to try: two links are made and removed.
const inTime = 30 * time.Second
