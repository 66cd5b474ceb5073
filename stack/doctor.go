package stack

import (
	"context"
	"fmt"

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
	stage int // of checks that need no other, 0; a stage is skipped when one before it has a problem in a check marked vital
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
}

// Checks are all checks of [Diagnose], by name, with what each asks.
func Checks() (all []Finding) {
	for _, c := range checks {
		all = append(all, Finding{Check: c.name, Asked: c.asked})
	}
	return all
}

// checks run in this order. Those of a stage below a vital check that failed are skipped.
var checks = []check{
	{"declaration", "can what is declared work at all?", 0, true, checkDeclaration},
	{"cloud", "is a cloud configured, and does it let us in?", 0, true, checkCloud},
	{"clock", "does this machine's clock agree with the cloud's?", 1, false, checkClock},
	{"token", "does the login last as long as a run?", 1, false, checkToken},
	{"endpoints", "does every service that is needed answer?", 1, true, checkEndpoints},
	{"extensions", "does Neutron have what pods on trunks need?", 2, false, checkExtensions},
	{"octavia", "is there a load balancer provider that can be used?", 2, false, checkProvider},
	{"external-network", "is there the external network?", 2, false, checkExternal},
	{"image", "is there the image, and is its login known?", 2, false, checkImage},
	{"flavors", "are there the flavors, and are they big enough?", 2, false, checkFlavors},
	{"quota", "is there room for what is missing?", 2, false, checkQuota},
	{"addresses", "do the declared ranges overlap the external network or this machine's own routes?", 2, false, checkAddresses},
	{"objects", "is every object of the stack as declared?", 3, false, checkObjects},
	{"servers", "do all servers run?", 3, false, checkServers},
	{"load-balancers", "are the load balancers in service?", 3, false, checkBalancers},
	{"ssh", "does every node answer SSH with its pinned key?", 3, false, checkSSH},
}

// Diagnose runs the checks: those of the cloud, and for a named stack those of the stack too. It changes nothing. The error is
// about the diagnosis itself; what is wrong is in the findings.
func Diagnose(ctx context.Context, name string, c Config, connect func(context.Context) (*openstack.Cloud, error), o Options) ([]Finding, error) {
	d := &diagnosis{config: c, options: o, connect: connect, name: name}
	defer func() {
		if d.stack != nil {
			d.stack.Close()
		}
	}()
	var all []Finding
	broken := len(checks)
	for _, c := range checks {
		if c.stage == 3 && name == "" {
			continue
		}
		f := Finding{Check: c.name, Asked: c.asked, Verdict: Skipped, Answer: "what it stands on has a problem"}
		if c.stage < broken || c.stage == 0 {
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
