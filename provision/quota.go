package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"golang.org/x/sync/errgroup"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Quota is one limit of the project. A Limit of -1 is none.
type Quota struct {
	Service     string // network, compute, block-storage or load-balancer
	Resource    string // in the words of that service's quota API
	Option      string // of `openstack quota set`
	Limit, Used int
}

// quotaNames ties the words of the three quota APIs to the options of `openstack quota set` (python-openstackclient, "quota set").
var quotaNames = []Quota{
	{Service: "network", Resource: "network", Option: "networks"},
	{Service: "network", Resource: "subnet", Option: "subnets"},
	{Service: "network", Resource: "router", Option: "routers"},
	{Service: "network", Resource: "port", Option: "ports"},
	{Service: "network", Resource: "trunk", Option: ""}, // Neutron counts trunks, the client cannot set them
	{Service: "network", Resource: "floatingip", Option: "floating-ips"},
	{Service: "network", Resource: "security_group", Option: "secgroups"},
	{Service: "network", Resource: "security_group_rule", Option: "secgroup-rules"},
	{Service: "compute", Resource: "instances", Option: "instances"},
	{Service: "compute", Resource: "cores", Option: "cores"},
	{Service: "compute", Resource: "ram", Option: "ram"},
	{Service: "compute", Resource: "server_groups", Option: "server-groups"},
	{Service: "compute", Resource: "server_group_members", Option: "server-group-members"}, // of one group
	{Service: "block-storage", Resource: "volumes", Option: "volumes"},
	{Service: "block-storage", Resource: "gigabytes", Option: "gigabytes"},
	{Service: "load-balancer", Resource: "load_balancer", Option: ""}, // set with `openstack loadbalancer quota set`
	{Service: "load-balancer", Resource: "listener", Option: ""},
	{Service: "load-balancer", Resource: "pool", Option: ""},
	{Service: "load-balancer", Resource: "health_monitor", Option: ""},
	{Service: "load-balancer", Resource: "member", Option: ""},
}

// Quotas reads the project's limits and what is used of them.
func (s *Session) Quotas(ctx context.Context) ([]Quota, error) {
	var network struct {
		Quota map[string]struct{ Limit, Used int }
	}
	var compute, volumes struct {
		Limits struct{ Absolute map[string]int }
	}
	var balancer struct{ Quota map[string]int }
	g, gctx := errgroup.WithContext(ctx)
	read := func(service func(*openstack.Cloud) (*gophercloud.ServiceClient, error), path string, into any) {
		g.Go(func() error {
			client, err := service(s.Cloud)
			if openstack.IsNoService(err) {
				return nil
			}
			if err != nil {
				return err
			}
			_, err = client.Get(gctx, client.ServiceURL(strings.Split(path, "/")...), into, nil)
			// Nothing but volumes to boot from needs Cinder, and these are looked at on their own.
			if openstack.IsNotFound(err) || path == "limits" && into == any(&volumes) && gctx.Err() == nil {
				return nil // a cloud without this call has limits all the same, and names them when they are reached
			}
			return openstack.Wrap(err, "reading the quotas of the project")
		})
	}
	project := s.Cloud.ProjectID()
	read((*openstack.Cloud).Network, "quotas/"+project+"/details", &network)
	read((*openstack.Cloud).Compute, "limits", &compute)
	read((*openstack.Cloud).Volumes, "limits", &volumes)
	read((*openstack.Cloud).LoadBalancer, "lbaas/quotas/"+project, &balancer)
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := slices.Clone(quotaNames)
	for i := range all {
		q := &all[i]
		q.Limit = -1
		switch q.Service {
		case "network":
			if n, ok := network.Quota[q.Resource]; ok {
				q.Limit, q.Used = n.Limit, n.Used
			}
		case "compute":
			word := map[string][2]string{"instances": {"maxTotalInstances", "totalInstancesUsed"}, "cores": {"maxTotalCores", "totalCoresUsed"},
				"ram": {"maxTotalRAMSize", "totalRAMUsed"}, "server_groups": {"maxServerGroups", "totalServerGroupsUsed"},
				"server_group_members": {"maxServerGroupMembers", ""}}[q.Resource]
			if limit, ok := compute.Limits.Absolute[word[0]]; ok {
				q.Limit, q.Used = limit, compute.Limits.Absolute[word[1]]
			}
		case "block-storage":
			word := map[string][2]string{"volumes": {"maxTotalVolumes", "totalVolumesUsed"}, "gigabytes": {"maxTotalVolumeGigabytes", "totalGigabytesUsed"}}[q.Resource]
			if limit, ok := volumes.Limits.Absolute[word[0]]; ok {
				q.Limit, q.Used = limit, volumes.Limits.Absolute[word[1]]
			}
		case "load-balancer":
			if limit, ok := balancer.Quota[q.Resource]; ok {
				q.Limit = limit
			}
		}
	}
	return all, s.countBalancers(ctx, all)
}

// countBalancers fills in what Octavia's quota API does not tell: how much is used. It asks only where there is a limit.
func (s *Session) countBalancers(ctx context.Context, all []Quota) error {
	for i := range all {
		q := &all[i]
		if q.Service != "load-balancer" || q.Limit < 0 {
			continue
		}
		c := octavia(strings.ReplaceAll(q.Resource, "_", "")+"s", "", strings.ReplaceAll(q.Resource, "_", "")+"s")
		if q.Resource == "member" {
			c = octavia("pools", "", "pools") // which name their members
		}
		used, err := list[struct{ Members []struct{} }](ctx, s.Cloud, c, map[string][]string{"project_id": {s.Cloud.ProjectID()}})
		if err != nil {
			return err
		}
		if q.Used = len(used); q.Resource == "member" {
			q.Used = 0
			for _, pool := range used {
				q.Used += len(pool.Members)
			}
		}
	}
	return nil
}

// Demand is what making r takes of the project's quotas, by the resource names of [Quota].
func (s *Session) Demand(ctx context.Context, r graph.Resource) (map[string]int, error) {
	switch r := r.(type) {
	case *Network:
		return map[string]int{"network": 1, "port": 1}, nil // the port that Neutron adds for DHCP and metadata counts too
	case *Subnet:
		return map[string]int{"subnet": 1}, nil
	case *Router:
		return map[string]int{"router": 1}, nil
	case *RouterInterface:
		if r.Port == nil {
			return map[string]int{"port": 1}, nil
		}
	case *Port:
		return map[string]int{"port": 1}, nil
	case *Trunk:
		return map[string]int{"trunk": 1}, nil
	case *FloatingIP:
		return map[string]int{"floatingip": 1}, nil
	case *SecurityGroup:
		return map[string]int{"security_group": 1, "security_group_rule": 2}, nil // two for egress, made with the group
	case *SecurityRules:
		return map[string]int{"security_group_rule": len(r.Rules)}, nil
	case *ServerGroup:
		return map[string]int{"server_groups": 1}, nil
	case *LoadBalancer:
		return map[string]int{"load_balancer": 1, "listener": 1, "pool": 1, "health_monitor": 1, "member": len(r.Members),
			"port": 2}, nil // the VIP's, and OVN's for health checks
	case *Server:
		f, err := s.Flavor(ctx, r.Flavor)
		if none := new(NotThere); errors.As(err, &none) {
			err = nil // which is told elsewhere
		}
		takes := map[string]int{"instances": 1, "cores": f.VCPUs, "ram": f.RAM}
		if r.Volume.Size > 0 {
			takes["volumes"], takes["gigabytes"] = 1, r.Volume.Size
		}
		return takes, err
	}
	return nil, nil
}

// Shortage is a quota with less room than is needed.
type Shortage struct {
	Quota
	Needed int
}

func (x Shortage) String() string {
	return fmt.Sprintf("%s: %d more are needed and %d are free (limit %d, in use %d)", x.Resource, x.Needed, max(x.Limit-x.Used, 0), x.Limit, x.Used)
}

// QuotaCommand is what an administrator types to make room for all that is short, or "" where the client has no command for it.
func QuotaCommand(short []Shortage, project string) string {
	var all []string
	line := func(command string, option func(Shortage) string) {
		options := ""
		for _, x := range short {
			if name := option(x); name != "" {
				options += fmt.Sprintf(" --%s %d", name, x.Used+x.Needed)
			}
		}
		if options != "" {
			all = append(all, command+options+" "+project)
		}
	}
	line("openstack quota set", func(x Shortage) string { return x.Option })
	line("openstack loadbalancer quota set", func(x Shortage) string {
		if x.Service != "load-balancer" {
			return ""
		}
		return strings.ReplaceAll(x.Resource, "_", "")
	})
	return strings.Join(all, " && ")
}

// Shortages compares a demand with the quotas.
func Shortages(quotas []Quota, demand map[string]int) []Shortage {
	var all []Shortage
	for _, q := range quotas {
		if needed := demand[q.Resource]; q.Limit >= 0 && needed > q.Limit-q.Used {
			all = append(all, Shortage{q, needed})
		}
	}
	return all
}

// RaiseQuotas gives the project room for what is short. It acts as an administrator of the same cloud.
func (s *Session) RaiseQuotas(ctx context.Context, admin *openstack.Cloud, short []Shortage) error {
	raise := map[string]map[string]int{}
	for _, x := range short {
		if raise[x.Service] == nil {
			raise[x.Service] = map[string]int{}
		}
		raise[x.Service][x.Resource] = x.Used + x.Needed
	}
	project := s.Cloud.ProjectID()
	for _, service := range slices.Sorted(maps.Keys(raise)) {
		c, one := neutron("quotas/"+project, "", ""), "quota"
		switch service {
		case "compute":
			c, one = nova("os-quota-sets/"+project, "", ""), "quota_set"
		case "block-storage":
			c, one = collection{service: (*openstack.Cloud).Volumes, path: "os-quota-sets/" + project}, "quota_set"
		case "load-balancer":
			c = octavia("quotas/"+project, "", "")
		}
		if err := call(ctx, admin, c, http.MethodPut, "", map[string]any{one: raise[service]}); err != nil {
			return openstack.Wrap(err, "raising the %s quotas of project %s as %s", service, s.Cloud.ProjectName(), admin.Name)
		}
	}
	return nil
}
