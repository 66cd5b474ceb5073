package openstacktest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// serverGroup is Nova's: it has neither description nor metadata, and never changes.
type serverGroup struct {
	base
	Name     string   `json:"name" api:"c"`
	Policies []string `json:"policies" api:"c"` // before 2.64
	Policy   string   `json:"policy" api:"c"`   // since
	userID   string
}

func (c *Cloud) serverGroupRoutes(on func(string, string, int, func(*call) (any, error))) {
	on("GET", "/os-server-groups", 200, func(q *call) (any, error) {
		out := []any{}
		for _, g := range q.compute.groups.rows {
			if g.ProjectID == q.who.ProjectID {
				out = append(out, q.showServerGroup(g))
			}
		}
		return map[string]any{"server_groups": out}, nil
	})
	on("POST", "/os-server-groups", 200, createServerGroup)
	on("GET", "/os-server-groups/{id}", 200, func(q *call) (any, error) {
		g, err := q.serverGroup()
		if err != nil {
			return nil, err
		}
		return map[string]any{"server_group": q.showServerGroup(g)}, nil
	})
	on("DELETE", "/os-server-groups/{id}", 204, func(q *call) (any, error) {
		g, err := q.serverGroup()
		if err != nil {
			return nil, err
		}
		q.compute.groups.drop(g.ID)
		return nil, nil
	})
}

func (q *call) serverGroup() (*serverGroup, error) {
	g, ok := q.compute.groups.get(q.PathValue("id"))
	if !ok || g.ProjectID != q.who.ProjectID && !q.admin() {
		return nil, nova(http.StatusNotFound, "Instance group %s could not be found.", q.PathValue("id"))
	}
	return g, nil
}

func (q *call) showServerGroup(g *serverGroup) map[string]any {
	members := []string{}
	for _, s := range q.groupMembers(g.ID) {
		members = append(members, s.ID)
	}
	m := map[string]any{"id": g.ID, "name": g.Name, "members": members}
	if q.since(13) {
		m["project_id"], m["user_id"] = g.ProjectID, g.userID
	}
	if q.since(64) {
		m["policy"], m["rules"] = g.Policy, map[string]any{}
	} else {
		m["policies"], m["metadata"] = []string{g.Policy}, map[string]any{}
	}
	return m
}

func createServerGroup(q *call) (any, error) {
	f, err := q.object("server_group")
	if err != nil {
		return nil, err
	}
	g := &serverGroup{userID: q.who.UserID}
	refused, err := assign(g, f, atCreate)
	if f.has("policy") != q.since(64) || f.has("policies") == q.since(64) {
		refused = append(refused, "policy")
	}
	if len(g.Policies) == 1 {
		g.Policy = g.Policies[0]
	}
	known := []string{"anti-affinity", "affinity"}
	if q.since(15) {
		known = append(known, "soft-anti-affinity", "soft-affinity")
	}
	if len(refused) > 0 || err != nil || g.Name == "" || !slices.Contains(known, g.Policy) {
		q.misuse("bad server group %s: %v %v", q.body, refused, err)
		return nil, nova(http.StatusBadRequest, "Invalid input for field/attribute server_group.")
	}
	n := len(q.compute.groups.where(func(o *serverGroup) bool { return o.ProjectID == q.who.ProjectID }))
	if limit := q.limit("compute", "server_groups", q.who.ProjectID); limit >= 0 && n >= limit {
		return nil, nova(http.StatusForbidden, "Quota exceeded, too many server groups.")
	}
	g.ID, g.ProjectID = q.newID(), q.who.ProjectID
	q.compute.groups.add(g)
	return map[string]any{"server_group": q.showServerGroup(g)}, nil
}

// hint is the group that the request asks for beside the server.
func (q *call) hint() (group string, err error) {
	var body struct {
		Server json.RawMessage   `json:"server"`
		Hints  map[string]string `json:"os:scheduler_hints"`
	}
	if err := json.Unmarshal(q.body, &body); err != nil {
		return "", nova(http.StatusBadRequest, "Invalid input for field/attribute os:scheduler_hints. %v", err)
	}
	group, asked := body.Hints["group"]
	if !asked {
		return "", nil
	}
	if _, ok := q.compute.groups.get(group); !ok {
		return "", nova(http.StatusBadRequest, "Instance group %s could not be found.", group)
	}
	if limit := q.limit("compute", "server_group_members", q.who.ProjectID); limit >= 0 && len(q.groupMembers(group)) >= limit {
		return "", nova(http.StatusForbidden, "Quota exceeded, too many servers in group")
	}
	return group, nil
}

func (c *Cloud) groupMembers(group string) []*server {
	return c.compute.servers.where(func(s *server) bool { return group != "" && s.group == group })
}

// place chooses the hypervisor of a server: one of its zone, of those that its group allows the one with the fewest servers. Hypervisor i is in zone
// i of those that there are, in turn.
func (c *Cloud) place(s *server) bool {
	best, least := "", 0
	for i := range c.knobs.hosts {
		if c.knobs.computeZones[i%len(c.knobs.computeZones)] != s.Zone {
			continue
		}
		sum := sha256.Sum224([]byte(s.ProjectID + fmt.Sprint("compute-", i)))
		host, load := hex.EncodeToString(sum[:]), 0
		for _, o := range c.compute.servers.rows {
			if o.Host != host || o == s {
				continue
			}
			load++
			if g, ok := c.compute.groups.get(s.group); ok && o.group == s.group {
				load += 1000
				if g.Policy == "anti-affinity" {
					load += 1000000
				}
			}
		}
		if load < 1000000 && (best == "" || load < least) {
			best, least = host, load
		}
	}
	s.Host = best
	return best != ""
}
