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

// Whose tells at whose door a finding lies: who has to act.
type Whose string

// Who can be asked to act.
const (
	You       Whose = "you"        // who declares and runs the stack: the lab file, this machine, the login, what was changed by hand
	YourQuota Whose = "your quota" // an administrator raises it, or less is declared
	TheCloud  Whose = "the cloud"  // its operator
	Kuryrctl  Whose = "kuryrctl"   // what it made or runs is not as it should be; where it does not mend that itself, it is a bug of ours
)

// Finding is one check with its answer.
type Finding struct {
	Check   string  `json:"check"`
	Asked   string  `json:"asked"`
	Verdict Verdict `json:"verdict"`
	Answer  string  `json:"answer"`
	Whose   Whose   `json:"whose,omitempty"` // of a warning and a problem
	Do      string  `json:"do,omitempty"`    // what mends it
	// Request is the id under which the cloud logged the call that failed, if one did.
	Request string `json:"request_id,omitempty"`
}

// answer is what a check found. The zero verdict is [Good]; an empty whose is the check's.
type answer struct {
	verdict  Verdict
	text, do string
	whose    Whose
	request  string
}

func good(format string, args ...any) answer { return answer{text: fmt.Sprintf(format, args...)} }

func warning(text, do string) answer { return answer{verdict: Warning, text: text, do: do} }

func skipped(why string) answer { return answer{verdict: Skipped, text: why} }

func problem(text, do string) answer { return answer{verdict: Bad, text: text, do: do} }

// failed is a problem whose text is an error. One that the cloud answered with says by itself whose it is.
func failed(err error, do string) answer {
	a := answer{verdict: Bad, text: err.Error(), do: do, request: openstack.RequestID(err)}
	switch {
	case openstack.IsQuota(err):
		a.whose = YourQuota
	case openstack.IsForbidden(err), openstack.IsUnauthorized(err):
		a.whose = You
	case openstack.IsBroken(err), openstack.IsNoService(err):
		a.whose = TheCloud
	}
	return a
}

// of says whose it is.
func (a answer) of(whose Whose) answer {
	a.whose = whose
	return a
}

// DiagnoseOptions are what a diagnosis is asked to reckon with.
type DiagnoseOptions struct {
	Options
	Pods, Services int  // that are expected on top of what a stack has of its own
	Active         bool // something may be made in the stack for it, and removed
}

// diagnosis is what checks work on; earlier checks fill it for later ones.
type diagnosis struct {
	config  Config
	options DiagnoseOptions
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

func (d *diagnosis) cloud() *openstack.Cloud { return d.stack.session.Cloud }

// Diagnose runs the checks: those of the cloud, and for a named stack those of the stack too. It changes nothing that
// stays, and nothing at all unless it may be active. The error is
// about the diagnosis itself; what is wrong is in the findings.
func Diagnose(ctx context.Context, name string, c Config, connect func(context.Context) (*openstack.Cloud, error), o DiagnoseOptions) ([]Finding, error) {
	d := &diagnosis{config: c, options: o, connect: connect, name: name, answers: map[string]bool{}}
	defer func() {
		if d.stack != nil {
			d.stack.Close()
		}
	}()
	var all []Finding
	broken := ofActive + 1
	for _, c := range checks {
		if c.stage >= ofStack && name == "" || c.stage == ofActive && !o.Active {
			continue
		}
		a := skipped("what it stands on has a problem")
		if c.stage < broken {
			if a = c.run(ctx, d); ctx.Err() != nil {
				return all, context.Cause(ctx)
			}
			if c.vital && a.verdict == Bad {
				broken = c.stage + 1
			}
		}
		all = append(all, c.finding(a))
	}
	return all, nil
}

// finding joins a check with its answer.
func (c check) finding(a answer) Finding {
	f := Finding{Check: c.Name, Asked: c.Asked, Verdict: Good, Answer: a.text, Do: a.do, Request: a.request}
	if a.verdict != "" {
		f.Verdict = a.verdict
	}
	if f.Verdict == Warning || f.Verdict == Bad {
		if f.Whose = c.Whose; a.whose != "" {
			f.Whose = a.whose
		}
	}
	return f
}
