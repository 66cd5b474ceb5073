package openstacktest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
)

type member struct {
	part
	PoolID         string  `json:"-"`
	Address        string  `json:"address" api:"c"`
	Port           int     `json:"protocol_port" api:"c"`
	Weight         int     `json:"weight" api:"cu"`
	Backup         bool    `json:"backup" api:"cu"`
	SubnetID       *string `json:"subnet_id" api:"c"`
	MonitorAddress *string `json:"monitor_address" api:"cu"`
	MonitorPort    *int    `json:"monitor_port" api:"cu"`
}

func (c *Cloud) memberRoutes(on func(string, string, int, func(*call) (any, error))) {
	in := func(do func(*call, *lbPool) (any, error)) func(*call) (any, error) {
		return func(q *call) (any, error) {
			p, ok := q.balancer.pools.get(q.PathValue("pool"))
			if !ok || p.ProjectID != q.who.ProjectID && !q.admin() {
				return nil, notFound("Pool", q.PathValue("pool"))
			}
			return do(q, p)
		}
	}
	one := func(do func(*call, *member) (any, error)) func(*call) (any, error) {
		return in(func(q *call, p *lbPool) (any, error) {
			m, ok := q.balancer.members.get(q.PathValue("id"))
			if !ok || m.PoolID != p.ID {
				return nil, notFound("Member", q.PathValue("id"))
			}
			return do(q, m)
		})
	}
	path := "/pools/{pool}/members"
	on("GET", path, 200, in(func(q *call, p *lbPool) (any, error) {
		return list(q, "members", "Member", q.balancer.members.where(func(m *member) bool { return m.PoolID == p.ID }), octavia)
	}))
	on("POST", path, 201, in(func(q *call, p *lbPool) (any, error) {
		f, err := q.object("member")
		if err != nil {
			return nil, err
		}
		if err := q.open(p); err != nil {
			return nil, err
		}
		m, err := q.newMember(p, f)
		if err == nil {
			if err = q.checkSubnet(m); err != nil {
				q.balancer.members.drop(m.ID)
			}
		}
		if err != nil {
			return nil, err
		}
		q.pending(p.lb, m, p)
		return map[string]any{"member": m}, nil
	}))
	on("PUT", path, 202, in(replaceMembers))
	on("GET", path+"/{id}", 200, one(func(q *call, m *member) (any, error) {
		if q.look(m); m.gone {
			return nil, notFound("Member", m.ID)
		}
		return map[string]any{"member": m}, nil
	}))
	on("PUT", path+"/{id}", 200, one(func(q *call, m *member) (any, error) {
		f, err := q.object("member")
		if err != nil {
			return nil, err
		}
		if err := q.mutable(m.lb); err != nil {
			return nil, err
		}
		fresh := clone(m)
		if err := q.fill(fresh, f, atUpdate); err != nil {
			return nil, err
		}
		overwrite(m, fresh)
		q.pending(m.lb, m)
		return map[string]any{"member": m}, nil
	}))
	on("DELETE", path+"/{id}", 204, one(func(q *call, m *member) (any, error) {
		if err := q.mutable(m.lb); err != nil {
			return nil, err
		}
		q.removing(m, func() { q.balancer.members.drop(m.ID) })
		return nil, nil
	}))
}

// newMember checks and stores a member, without setting anything pending.
func (q *call) newMember(p *lbPool, f fields) (*member, error) {
	m, err := q.readMember(p, f)
	if err != nil {
		return nil, err
	}
	if q.balancer.members.any(m.same) {
		return nil, taken(m)
	}
	if err := q.limited("member", "Member", 1); err != nil {
		return nil, err
	}
	q.balancer.members.add(m)
	return m, nil
}

func taken(m *member) error {
	return octavia(http.StatusConflict, "", "Another member on this pool is already using ip %s on protocol_port %d", m.Address, m.Port)
}

func (m *member) same(o *member) bool {
	return o.PoolID == m.PoolID && o.Address == m.Address && o.Port == m.Port
}

func (q *call) readMember(p *lbPool, f fields) (*member, error) {
	m := &member{part: q.newPart(p.ProjectID, p.lb), PoolID: p.ID, Weight: 1}
	if err := q.fill(m, f, atCreate); err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(m.Address); err != nil {
		return nil, octavia(http.StatusBadRequest, "", "Invalid input for field/attribute address. Value: '%s'.", m.Address)
	}
	if m.Port < 1 || m.Port > 65535 {
		return nil, octavia(http.StatusBadRequest, "", "Invalid input for field/attribute protocol_port. Value: '%d'.", m.Port)
	}
	if m.Weight < 0 || m.Weight > 256 {
		return nil, octavia(http.StatusBadRequest, "", "Invalid input for field/attribute weight. Value: '%d'.", m.Weight)
	}
	if m.SubnetID != nil {
		if _, ok := q.network.subnets.get(*m.SubnetID); !ok {
			return nil, octavia(http.StatusBadRequest, "", "Subnet %s not found.", *m.SubnetID)
		}
	}
	return m, nil
}

// checkSubnet refuses a member without a subnet, unless it is on the VIP's, as the
// OVN provider does; in a tree it takes the VIP's subnet for that of any member.
func (q *call) checkSubnet(m *member) error {
	lb, _ := q.balancer.loadBalancers.get(m.lb)
	if lb.Provider != "ovn" || m.SubnetID != nil {
		return nil
	}
	if s, ok := q.network.subnets.get(lb.VIPSubnet); ok && s.prefix().Contains(netip.MustParseAddr(m.Address)) {
		return nil
	}
	return unsupported("Subnet is required, or Loadbalancer associated with Pool must have a subnet, for Member creation with OVN Provider Driver if it is not the same as LB VIP subnet")
}

// replaceMembers is the batch PUT: members are told apart by address and port;
// what is not in the body goes, unless additive_only is asked for.
func replaceMembers(q *call, p *lbPool) (any, error) {
	var body map[string][]fields
	if err := json.Unmarshal(q.body, &body); err != nil {
		return nil, fmt.Errorf("decoding members: %w", err)
	}
	if err := q.open(p); err != nil {
		return nil, err
	}
	old := q.balancer.members.where(func(m *member) bool { return m.PoolID == p.ID })
	var fresh, updated, kept []*member
	for _, f := range body["members"] {
		m, err := q.readMember(p, f)
		if err == nil {
			err = q.checkSubnet(m)
		}
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(fresh, m.same) {
			return nil, taken(m)
		}
		if slices.ContainsFunc(updated, m.same) {
			return nil, octavia(http.StatusBadRequest, "", "Validation failure: Member must be updated only once in the same request.")
		}
		if i := slices.IndexFunc(old, m.same); i >= 0 {
			m.ID, m.CreatedAt, m.Provisioning, m.Operating, m.change = old[i].ID, old[i].CreatedAt, old[i].Provisioning, old[i].Operating, old[i].change
			updated, kept = append(updated, m), append(kept, old[i])
			continue
		}
		fresh = append(fresh, m)
	}
	additive := q.URL.Query().Get("additive_only") == "true"
	gone := 0
	if !additive {
		gone = len(old) - len(kept)
	}
	if err := q.limited("member", "Member", len(fresh)-gone); err != nil {
		return nil, err
	}
	changed := []branch{p}
	for i, m := range updated {
		overwrite(kept[i], m)
		changed = append(changed, kept[i])
	}
	for _, m := range fresh {
		q.balancer.members.add(m)
		changed = append(changed, m)
	}
	q.pending(p.lb, changed...)
	lb, _ := q.balancer.loadBalancers.get(p.lb)
	for _, m := range old {
		if !additive && !slices.Contains(kept, m) {
			m.Provisioning = "PENDING_DELETE"
			drop := func() { q.balancer.members.drop(m.ID) }
			q.arrive(lb, m, func() {
				if lb.Provider != "ovn" || len(changed) == 1 {
					drop()
					return
				}
				// The OVN provider reports the whole pool when it has changed or made a member, before it comes to those to remove.
				m.Provisioning = "ACTIVE"
				q.Cloud.later(m, drop)
			})
		}
	}
	return nil, nil
}
