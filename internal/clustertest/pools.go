package clustertest

import (
	"encoding/json"
	"strings"
)

// PoolsPath is where the custom resource SubportPool is served.
const PoolsPath = "/apis/kuryr.openstack.org/v1alpha1/subportpools"

// SetPool makes a pool be as given, as its controller does: the status that is there stays.
func (s *Server) SetPool(pool any) {
	s.t.Helper()
	var named struct{ Metadata struct{ Name string } }
	text, err := json.Marshal(pool)
	if err == nil {
		err = json.Unmarshal(text, &named)
	}
	if err != nil {
		s.t.Fatalf("clustertest: a pool that is no JSON: %v", err)
	}
	s.Put(poolPath(named.Metadata.Name), pool)
}

// DeletePool makes a pool be gone.
func (s *Server) DeletePool(name string) { s.Remove(poolPath(name)) }

// Pool decodes a pool into what is given, and reports whether it is there.
func (s *Server) Pool(name string, into any) (ok bool) { return s.Object(poolPath(name), into) }

func poolPath(name string) string { return strings.TrimPrefix(PoolsPath, "/apis/") + "/" + name }
