package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// Pools lists the subports of all workers, and what they were handed out to.
func (c *Cluster) Pools(ctx context.Context) ([]vif.SubportPool, error) {
	status, text, err := c.get(ctx, "/apis/"+vif.Group+"/"+vif.Version+"/"+vif.Resource)
	if err == nil && status != http.StatusOK {
		err = unexpected(status)
	}
	var list vif.SubportPoolList
	if err == nil {
		err = json.Unmarshal([]byte(text), &list)
	}
	if err != nil {
		return nil, fmt.Errorf("listing SubportPools: %w", err)
	}
	return list.Items, nil
}
