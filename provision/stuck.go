package provision

import (
	"fmt"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/loadbalancers"
)

// patience is for how many polls a load balancer may stay PENDING_* without any change: a quarter of an hour, at one a second. Octavia's worker
// itself says ERROR of an amphora that does not boot within 5 minutes or does not answer within 10 more (30 and 120 tries, unless its operator
// says otherwise), and OVN's provider takes seconds: what is PENDING_* for longer is so because its worker was lost, and stays so. Polls
// are counted, as refusals are.
const patience = 900

// StuckError is a load balancer that Octavia does not get done with. It takes no call about it meanwhile.
type StuckError struct {
	Name, ID, Status string
	Since            time.Time // by Octavia's clock; zero if it does not say
}

func (e *StuckError) Error() string {
	since := ""
	if !e.Since.IsZero() {
		since = " since " + e.Since.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("load balancer %s (%s) is %s%s, and Octavia takes no call about it: only the cloud's operator can end that", e.Name, e.ID, e.Status, since)
}

// progress tells whether a load balancer that is waited for still changes.
type progress struct {
	last  string
	polls float64 // since then
}

// see counts a look, which is so many polls after the one before.
func (p *progress) see(x *loadbalancers.LoadBalancer, polls float64) error {
	changed := x.UpdatedAt
	if changed.IsZero() {
		changed = x.CreatedAt
	}
	if now := x.ProvisioningStatus + changed.String(); now != p.last {
		p.last, p.polls = now, 0
	}
	if p.polls += polls; p.polls <= patience || !strings.HasPrefix(x.ProvisioningStatus, "PENDING_") {
		return nil
	}
	return &StuckError{x.Name, x.ID, x.ProvisioningStatus, changed}
}
