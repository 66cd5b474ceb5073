// Package bootstrap makes reachable hosts the nodes of a Kubernetes cluster: it owns what is done on them, from the first look at the
// system to kubeadm's join, as resources of the graph, each of which looks before it acts and can be repeated at any time.
//
// It does not know how hosts come to be or are reached (packages provision and bootstrap/ssh, joined by package stack), where
// software comes from (bootstrap/bundle), or how the cluster is spoken to (bootstrap/cluster). It never removes a control plane
// that was once complete.
//
// Start reading at [Cluster], then [Cluster.Prepare], [Cluster.Init] and [Cluster.Join].
package bootstrap

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// Node is a host on its way to be a node.
type Node struct {
	Name    string // of the host and of the node
	Address func() netip.Addr
	Connect func(context.Context) (*ssh.Client, error)
	Log     string // the file that holds all that was run there

	mu    sync.Mutex
	facts *facts
}

// step is one state that a host is to be in.
type step struct {
	key   graph.Key
	needs []graph.Resource
	node  *Node
	look  func(context.Context, *ssh.Client) (graph.State, error)
	do    func(context.Context, *ssh.Client) error
}

func (s *step) Key() graph.Key          { return s.key }
func (s *step) Needs() []graph.Resource { return s.needs }

// Observe implements [graph.Resource]. A host that cannot be reached is no error: its own row says why.
func (s *step) Observe(ctx context.Context) (graph.State, error) {
	client, err := s.node.Connect(ctx)
	if err != nil {
		return graph.State{Phase: graph.Pending, Detail: "the host is not reached"}, nil
	}
	state, err := s.look(ctx, client)
	return state, s.wrap(err)
}

// Apply implements [graph.Resource]. It looks again at the end: a change that did not come true is an error.
func (s *step) Apply(ctx context.Context) error {
	client, err := s.node.Connect(ctx)
	if err != nil {
		return s.wrap(err)
	}
	if err := s.do(ctx, client); err != nil {
		return s.wrap(err)
	}
	state, err := s.look(ctx, client)
	if err == nil && state.Phase != graph.Ready {
		err = fmt.Errorf("all was done, and still %s", state.Detail)
	}
	return s.wrap(err)
}

func (s *step) wrap(err error) error {
	var already *StepError
	if err == nil || errors.As(err, &already) {
		return err
	}
	return &StepError{Node: s.node.Name, Step: string(s.key), Log: s.node.Log, Err: err}
}

// StepError says on which node what went wrong, and where all that was run there can be read.
type StepError struct {
	Node, Step string
	Log        string
	Err        error
}

func (e *StepError) Error() string { return "on " + e.Node + ": " + e.Err.Error() }

func (e *StepError) Unwrap() error { return e.Err }

// file is a file on a node, of root.
type file struct {
	path    string
	mode    fs.FileMode
	content []byte
}

// look runs a check on a host: shell that prints a line for each thing that is not as it should be, and "none" when nothing of it was ever
// there. A check that did not get to its end has found nothing out.
func look(ctx context.Context, client *ssh.Client, check string) (string, error) {
	out, err := client.Run(ctx, ssh.Command{Line: check + "\necho looked\n", Sudo: true})
	if err != nil {
		return "", err
	}
	printed, whole := strings.CutSuffix(out.Stdout, "looked\n")
	if !whole {
		return "", fmt.Errorf("the check did not get to its end; it printed %q", out.Stdout)
	}
	return printed, nil
}

// found makes a state of what a check printed.
func found(printed, ready string) graph.State {
	var lines []string
	phase := graph.Drifted
	for line := range strings.Lines(printed) {
		if line = strings.TrimSpace(line); line == "none" {
			phase = graph.Absent
		} else if line != "" {
			lines = append(lines, line)
		}
	}
	switch {
	case phase == graph.Absent:
		return graph.State{Detail: strings.Join(lines, "; ")}
	case len(lines) == 0:
		return graph.State{Phase: graph.Ready, Detail: ready}
	}
	return graph.State{Phase: phase, Detail: strings.Join(lines, "; ")}
}

// checkFiles is a piece of shell that prints which of the files are missing or different, and "none" when all are missing.
func checkFiles(files []file) string {
	var sums, modes, paths strings.Builder
	for _, f := range files {
		sum := sha256.Sum256(f.content)
		fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(sum[:]), f.path)
		fmt.Fprintf(&modes, "%o %s\n", f.mode.Perm(), f.path)
		paths.WriteString(" " + f.path)
	}
	return "sha256sum --check --quiet 2>/dev/null <<END\n" + sums.String() + "END\n" +
		"have=$(stat -c '%a %n'" + paths.String() + " 2>/dev/null)\n" +
		"[ -n \"$have\" ] || echo none\n" +
		"[ \"$have\" = '" + strings.TrimSuffix(modes.String(), "\n") + "' ] || echo 'files are missing or have other modes'\n"
}

// write puts files on a host; what they hold is seen by nobody on the way.
func write(ctx context.Context, client *ssh.Client, files []file) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range files {
		h := &tar.Header{Name: strings.TrimPrefix(f.path, "/"), Mode: int64(f.mode.Perm()), Size: int64(len(f.content)), ModTime: time.Now()}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("packing %s: %w", f.path, err)
		}
		if _, err := w.Write(f.content); err != nil {
			return fmt.Errorf("packing %s: %w", f.path, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("packing files: %w", err)
	}
	line := "# write files\ntar -x -p -C / --no-same-owner --no-overwrite-dir && sync" // a host that loses its power must not be left with empty files
	for _, f := range files {
		line += " " + ssh.Quote(f.path)
	}
	_, err := client.Run(ctx, ssh.Command{Line: line, Stdin: &archive, Sudo: true})
	return err
}
