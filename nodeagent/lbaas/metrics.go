package lbaas

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

func (s *Services) add(name string, n float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[name] += n
}

func (s *Services) set(name string, v int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[name] = float64(v)
}

// Metrics writes what there is to measure in Prometheus' text format.
func (s *Services) Metrics(w io.Writer) {
	s.mu.Lock()
	all := maps.Clone(s.count)
	s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(w, "kuryr_controller_%s %g\n", name, all[name])
	}
}
