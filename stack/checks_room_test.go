package stack

import (
	"net/netip"
	"testing"
)

// As the kernel of a laptop with a VPN shows them.
const laptop = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wlan0	00000000	0101A8C0	0003	0	0	600	00000000	0	0	0
tun0	0000000A	00000000	0001	0	0	50	000000FF	0	0	0
docker0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0
wlan0	0001A8C0	00000000	0001	0	0	600	00FFFFFF	0	0	0
`

func TestRoutesOfThisMachineThatHideTheStackAreFound(t *testing.T) {
	mine := routes(laptop)
	if len(mine) != 3 {
		t.Fatalf("%v", mine)
	}
	declared := map[string]netip.Prefix{
		"networks.vm.cidr": netip.MustParsePrefix("10.11.0.0/24"), "networks.pod.cidr": netip.MustParsePrefix("172.17.128.0/20"),
		"networks.service.cidr": netip.MustParsePrefix("172.30.0.0/16"),
	}
	got := clashes(declared, mine)
	want := []clash{{"networks.pod.cidr", "route 172.17.0.0/16 by docker0"}, {"networks.vm.cidr", "route 10.0.0.0/8 by tun0"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v", got)
	}
}
