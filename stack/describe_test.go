package stack_test

import (
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

func TestAStackIsDescribedInDepth(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	built := mustUp(t, lab, "demo", servers())
	worker := built.Nodes[1]
	port := func(name string) string {
		var made struct{ Port struct{ ID string } }
		neutron(t, lab, "POST", "ports", map[string]any{"port": map[string]any{"name": name, "description": openstack.Mark("demo"), "network_id": id(t, lab, "networks", "demo/pod_net")}}, &made)
		return made.Port.ID
	}
	free, pod := port("demo/pod-worker-0-abcdefgh"), port("default/web-1")
	neutron(t, lab, "PUT", "trunks/"+worker.TrunkID+"/add_subports", map[string]any{"sub_ports": []map[string]any{
		{"port_id": free, "segmentation_type": "vlan", "segmentation_id": 1}, {"port_id": pod, "segmentation_type": "vlan", "segmentation_id": 2}}}, nil)

	lab.ResetLog()
	v, err := open(t, lab, "demo").Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(lab.Writes()) != 0 {
		t.Errorf("a look wrote: %v", lab.Writes())
	}
	if g := v.Gateway; g == nil || g.External != "public" || len(g.Addresses) != 1 || len(g.Interfaces) != 3 || g.Interfaces[1].Address != "172.30.255.254" {
		t.Errorf("router %+v", v.Gateway)
	}
	ports := v.Nodes[1].TrunkPorts
	if len(ports) != 2 || ports[0].Pod != "default/web-1" || ports[0].VLAN != 2 || len(ports[0].Addresses) != 1 || ports[1].Pod != "" || ports[1].PortID != free {
		t.Errorf("subports %+v", ports)
	}
	l := v.LoadBalancers[0].Listeners
	if len(l) != 1 || l[0].Port != 443 || l[0].Protocol != "TCP" || len(l[0].Members) != 1 || l[0].Members[0].LeadsTo != "master-0" || l[0].Members[0].Port != 6443 {
		t.Errorf("listeners %+v", l)
	}
	if f := v.FloatingIPs; len(f) != 1 || f[0].LeadsTo != "master-0" || f[0].FixedIP != v.Nodes[0].Address {
		t.Errorf("floating IPs %+v", f)
	}
}
