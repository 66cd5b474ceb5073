package bootstrap

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/templates"
)

// Part is a file's worth of what was collected of a node.
type Part struct {
	Name string // relative, with slashes
	Text []byte
}

// Collect reads the journals, logs and state of a host in one command, the last limit bytes of each. It changes nothing. What it got is
// returned with the error too. There may be secrets in it.
func Collect(ctx context.Context, client *ssh.Client, limit int) ([]Part, error) {
	boundary := "==== " + rand.Text()
	script := templates.Script("collect", map[string]string{"boundary": boundary, "limit": strconv.Itoa(limit)})
	// It is kept out of the transcript, which is collected as well.
	out, err := client.Run(ctx, ssh.Command{Line: script, Sudo: true, Secret: true})
	var parts []Part
	whole := false
	for i, piece := range strings.Split(out.Stdout, "\n"+boundary+" ") {
		name, text, _ := strings.Cut(piece, "\n")
		if whole = name == "."; i == 0 || whole || text == "" {
			continue
		}
		parts = append(parts, Part{name, []byte(text)})
	}
	if err == nil && !whole {
		err = errors.New("collecting did not get to its end")
	}
	return parts, err
}
