package stack

import (
	"context"
	"fmt"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Verdict is how a check ended.
type Verdict string

// The verdicts. A check is skipped when what it stands on failed.
const (
	Good    Verdict = "ok"
	Warning Verdict = "warning"
	Bad     Verdict = "problem"
	Skipped Verdict = "skipped"
)

// Finding is one check with its answer.
type Finding struct {
	Check   string  `json:"check"`
	Asked   string  `json:"asked"`
	Verdict Verdict `json:"verdict"`
	Answer  string  `json:"answer"`
	Do      string  `json:"do,omitempty"` // what mends it
}

// check is a row of a list of checks.
type check struct {
	name  string
	asked string
	stage int // a stage is skipped when a vital check of one before it found a problem; 4 is about a stack that exists
	vital bool
	run   func(context.Context, *diagnosis) answer
}

// answer is what a check found. The zero verdict is [Good].
type answer struct {
	verdict  Verdict
	text, do string
}

func good(format string, args ...any) answer { return answer{text: fmt.Sprintf(format, args...)} }

func warning(text, do string) answer { return answer{Warning, text, do} }

func skipped(why string) answer { return answer{verdict: Skipped, text: why} }

func problem(text, do string) answer { return answer{Bad, text, do} }

func failed(err error, do string) answer { return answer{Bad, err.Error(), do} }

// diagnosis is what checks work on; earlier checks fill it for later ones.
type diagnosis struct {
	config  Config
	options Options
	connect func(context.Context) (*openstack.Cloud, error)
	name    string // "" checks only what a new stack would need

	stack *Stack
	lab   *Lab
	view  *View

	answers    map[string]bool // nodes that do, to SSH
	conditions map[string]*bootstrap.Condition
	blind      map[string]error // nodes that answer, and whose condition cannot be read
	kubernetes *bootstrap.Cluster
	healthy    bool // the API is
	network    *network
	noNetwork  error // why that could not be read
}

// Checks are all checks of [Diagnose], by name, with what each asks.
func Checks() (all []Finding) {
	for _, c := range checks {
		all = append(all, Finding{Check: c.name, Asked: c.asked})
	}
	return all
}

// checks run in this order.
var checks = []check{
	{"declaration", "can what is declared work at all?", 0, true, checkDeclaration},
	{"cloud", "is a cloud configured, and does it let us in?", 1, true, checkCloud},
	{"clock", "does this machine's clock agree with the cloud's?", 2, false, checkClock},
	{"token", "does the login last as long as a run?", 2, false, checkToken},
	{"endpoints", "does every service that is needed answer?", 2, true, checkEndpoints},
	{"extensions", "does Neutron have what pods on trunks need?", 3, false, checkExtensions},
	{"octavia", "is there a load balancer provider that can be used?", 3, false, checkProvider},
	{"external-network", "is there the external network?", 3, false, checkExternal},
	{"image", "is there the image, and is its login known?", 3, false, checkImage},
	{"flavors", "are there the flavors, and are they big enough?", 3, false, checkFlavors},
	{"quota", "is there room for what is missing?", 3, false, checkQuota},
	{"addresses", "do the declared ranges overlap the external network or this machine's own routes?", 3, false, checkAddresses},
	{"objects", "is every object of the stack as declared?", 4, false, checkObjects},
	{"servers", "do all servers run?", 4, false, checkServers},
	{"load-balancers", "are the load balancers in service?", 4, false, checkBalancers},
	{"ssh", "does every node answer SSH with its pinned key?", 4, false, checkSSH},
	{"node-system", "is every node's system fit for Kubernetes: clock, disk, kernel, network?", 4, false, checkNodeSystem},
	{"node-runtime", "do containerd and kubelet run, with images and certificates that are valid?", 4, false, checkNodeRuntime},
	{"api", "is the API ready behind its load balancer, with a certificate for its addresses?", 4, false, checkAPI},
	{"nodes", "is every server a node that is Ready, and every node a server?", 4, false, checkNodes},
	{"control-plane", "does every part of the control plane run?", 4, false, checkControlPlane},
	{"pod-controller", "does one of the controllers keep ports for pods?", 4, false, checkPodController},
	{"pod-cloud", "has OpenStack refused the controllers something lately?", 4, false, checkPodCloud},
	{"pod-pools", "has every worker free ports for the next pods?", 4, false, checkPodPools},
	{"pod-daemons", "does every worker's daemon report, and know the ports it may hand out?", 4, false, checkPodDaemons},
	{"pod-latency", "how long does a pod wait for its port?", 4, false, checkPodLatency},
	{"pod-ports", "has every pod a port that works, and is every port for a pod in use or in a pool?", 4, false, checkPodPorts},
	{"pod-starts", "do pods wait for their network?", 4, false, checkPodStarts},
	{"subnets", "have the stack's networks addresses left?", 4, false, checkSubnets},
}

// Diagnose runs the checks: those of the cloud, and for a named stack those of the stack too. It changes nothing. The error is
// about the diagnosis itself; what is wrong is in the findings.
func Diagnose(ctx context.Context, name string, c Config, connect func(context.Context) (*openstack.Cloud, error), o Options) ([]Finding, error) {
	d := &diagnosis{config: c, options: o, connect: connect, name: name, answers: map[string]bool{}}
	defer func() {
		if d.stack != nil {
			d.stack.Close()
		}
	}()
	var all []Finding
	broken := len(checks)
	for _, c := range checks {
		if c.stage == 4 && name == "" {
			continue
		}
		f := Finding{Check: c.name, Asked: c.asked, Verdict: Skipped, Answer: "what it stands on has a problem"}
		if c.stage < broken {
			a := c.run(ctx, d)
			if ctx.Err() != nil {
				return all, context.Cause(ctx)
			}
			if a.verdict == "" {
				a.verdict = Good
			}
			f.Verdict, f.Answer, f.Do = a.verdict, a.text, a.do
			if c.vital && a.verdict == Bad {
				broken = min(broken, c.stage+1)
			}
		}
		all = append(all, f)
	}
	return all, nil
}
