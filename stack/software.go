package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/bootstrap/payload"
	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// software is the bundle that nodes' software comes from: the one that was named, else the one that the stack was made from, else what
// upstream publishes.
type software struct {
	local   local
	named   string
	version string // that is declared

	mu     sync.Mutex
	opened *bundle.Bundle
	path   string // of what is opened
}

func (s *software) Key() graph.Key          { return "bundle" }
func (s *software) Needs() []graph.Resource { return nil }

// Observe implements [graph.Resource]. A bundle that was named and cannot be opened is an error; one that is only remembered may be gone.
func (s *software) Observe(context.Context) (graph.State, error) {
	path := s.named
	if path == "" {
		path = s.local.knownBundle()
	}
	if path == "" {
		return graph.State{Detail: "to be fetched from upstream"}, nil
	}
	err := s.open(path)
	if errors.Is(err, fs.ErrNotExist) && s.named == "" {
		return graph.State{Detail: path + " is no more; to be fetched from upstream"}, nil
	}
	return graph.State{Phase: graph.Ready, Detail: path}, err
}

// Apply implements [graph.Resource].
func (s *software) Apply(ctx context.Context) error {
	demo, err := payload.Demo(fetchedArch)
	if err != nil {
		return err
	}
	path, err := bundle.Fetch(ctx, bundle.Upstream(), s.version, fetchedArch, demo, nil)
	if err != nil {
		return err
	}
	if err := s.open(path); err != nil {
		return err
	}
	return s.local.keepBundle(s.path)
}

// fetchedArch is what is fetched when no bundle is named: the servers are not there yet to be asked what they are.
const fetchedArch = "amd64"

func (s *software) open(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		return nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("opening the bundle: %w", err)
	}
	opened, err := bundle.Open(path)
	if err != nil {
		return err
	}
	s.opened, s.path = opened, path
	return nil
}

// get is the bundle, once the resource is ready.
func (s *software) get() (*bundle.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened == nil {
		return nil, errors.New("there is no bundle of software yet")
	}
	return s.opened, nil
}

func (s *software) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		s.opened.Close()
		s.opened = nil
	}
}
