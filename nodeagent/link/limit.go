package link

import (
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Limits are what a pod may receive and send at most, in bits per second; zero is no limit.
type Limits struct {
	Ingress uint64
	Egress  uint64
}

const (
	burstFor = 100 * time.Millisecond // what may come at once is what the rate gives in this time, and never less than minBurst
	queueFor = 25 * time.Millisecond  // what waits longer to be sent is dropped
	minBurst = 128 << 10              // bytes: two of the largest segments that the kernel treats as one
)

// Limit bounds an interface that Attach has made: what is sent waits, what is received too fast is dropped, so that the sender slows down. The
// limits are the link's and go with it.
func Limit(at Place, limits Limits) error {
	if limits == (Limits{}) {
		return nil
	}
	s, err := enter(at.Netns)
	if err != nil {
		return err
	}
	defer s.close()
	l, err := s.find(at.Name)
	if err != nil {
		return err
	}
	if limits.Egress > 0 {
		rate, burst := limits.Egress/8, burst(limits.Egress/8)
		err := s.QdiscAdd(&netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate: rate, Buffer: netlink.Xmittime(rate, burst), Limit: burst + uint32(min(rate*uint64(queueFor)/uint64(time.Second), math.MaxInt32))})
		if err != nil {
			return fmt.Errorf("limiting what %s sends (kernel module sch_tbf): %w", at.Name, err)
		}
	}
	if limits.Ingress > 0 {
		qdisc := netlink.MakeHandle(0xffff, 0)
		if err := s.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: qdisc, Parent: netlink.HANDLE_INGRESS}}); err != nil {
			return fmt.Errorf("limiting what %s receives (kernel module sch_ingress): %w", at.Name, err)
		}
		police := netlink.NewPoliceAction()
		police.Rate, police.Burst = uint32(min(limits.Ingress/8, math.MaxUint32)), burst(limits.Ingress/8)
		police.Mtu, police.ExceedAction = minBurst, netlink.TC_POLICE_SHOT
		if err := s.FilterAdd(&netlink.MatchAll{FilterAttrs: netlink.FilterAttrs{LinkIndex: l.Attrs().Index, Parent: qdisc, Priority: 1, Protocol: unix.ETH_P_ALL},
			Actions: []netlink.Action{police}}); err != nil {
			return fmt.Errorf("limiting what %s receives (kernel modules cls_matchall, act_police): %w", at.Name, err)
		}
	}
	return nil
}

// burst is in bytes, of a rate in bytes per second.
func burst(rate uint64) uint32 {
	return uint32(min(max(rate*uint64(burstFor)/uint64(time.Second), minBurst), math.MaxInt32))
}
