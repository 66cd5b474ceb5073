package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// Lease says which of several does the work.
type Lease struct {
	Holder  string    // "" when it was given up
	Renewed time.Time // by the holder's clock
	Lasts   time.Duration
}

// Lease returns a Lease and whether there is one of that name.
func (c *Cluster) Lease(ctx context.Context, namespace, name string) (Lease, bool, error) {
	status, text, err := c.get(ctx, "/apis/coordination.k8s.io/v1/namespaces/"+namespace+"/leases/"+name)
	if err == nil && status == http.StatusNotFound {
		return Lease{}, false, nil
	}
	if err == nil && status != http.StatusOK {
		err = unexpected(status)
	}
	var l coordinationv1.Lease
	if err == nil {
		err = json.Unmarshal([]byte(text), &l)
	}
	if err != nil {
		return Lease{}, false, fmt.Errorf("looking at lease %s: %w", name, err)
	}
	var out Lease
	if l.Spec.HolderIdentity != nil {
		out.Holder = *l.Spec.HolderIdentity
	}
	if l.Spec.RenewTime != nil {
		out.Renewed = l.Spec.RenewTime.Time
	}
	if l.Spec.LeaseDurationSeconds != nil {
		out.Lasts = time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
	}
	return out, true, nil
}
