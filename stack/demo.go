package stack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/templates"
)

// DemoStep is one step of the deployment example, and how it went.
type DemoStep struct {
	Step    string  `json:"step"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Saw     string  `json:"saw"`           // what was seen; of a step that failed, what was wrong
	Hop     string  `json:"hop,omitempty"` // where the way to the pods is broken: see [Stack.hop]
}

// DemoOptions say how the example is run.
type DemoOptions struct {
	Keep  bool          // leave it in the cluster
	Limit time.Duration // for what a step waits for; 0 is two minutes
}

// ErrDemo is the error of an example of which a step failed.
var ErrDemo = errors.New("the example does not work")

// Names of what the example consists of.
const (
	demoNamespace = "kuryrctl-demo"
	demoName      = "demo"
	demoPort      = 8080
	demoScaled    = 3
)

// afterFailure is for what the steps after one that failed wait for: much of what they want cannot come any more.
const afterFailure = 10 * time.Second

// greeting is what follows a pod's name in its answer.
const greeting = ": HELLO, I AM ALIVE!!!"

type demoStep struct {
	name string
	do   func(context.Context) (saw string, err error)
}

// demo is one run of the example.
type demo struct {
	*Stack
	config Config
	limit  time.Duration // for what a step waits for
	view   *View
	api    *cluster.Cluster
	host   string        // of the route
	pods   []cluster.Pod // of the deployment, as last seen
	vip    string        // of its Service
}

// Demo runs the "Deployment example" of the 2017 write-up and tells each step as it ends: a deployment whose pod answers its node and a VM, a
// Service and a route that lead to it, three pods of which all answer and all are ports in Neutron under their names, and at the end
// nothing left. A step that fails says at which hop; those that can do without it go on. The error is [ErrDemo] when one did.
func (s *Stack) Demo(ctx context.Context, c Config, o DemoOptions, on func(DemoStep)) error {
	if o.Limit == 0 {
		o.Limit = 2 * time.Minute
	}
	v, err := s.Show(ctx)
	if err != nil {
		return err
	}
	api, err := s.attach(v).API()
	if err != nil {
		return err
	}
	d := &demo{Stack: s, config: c, limit: o.Limit, view: v, api: api, host: demoName + "." + c.AppsDomain()}
	steps := []demoStep{
		{"deploy", func(ctx context.Context) (string, error) { return d.deploy(ctx, 1) }},
		{"pod, from its node", d.podFromNode},
		{"pod, from a VM", d.podFromVM},
		{"port in Neutron", d.ports},
		{"service", d.service},
	}
	if c.Router.Enabled {
		steps = append(steps, demoStep{"route by name", d.route})
	}
	steps = append(steps,
		demoStep{"scale to three", func(ctx context.Context) (string, error) { return d.deploy(ctx, demoScaled) }},
		demoStep{"all three answer", d.allAnswer},
		demoStep{"three ports in Neutron", d.ports})
	if !o.Keep {
		steps = append(steps, demoStep{"delete", func(ctx context.Context) (string, error) { return d.remove(ctx, o.Limit) }})
	}
	failed := false
	for _, step := range steps {
		begin := time.Now()
		saw, err := step.do(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r := DemoStep{Step: step.name, OK: err == nil, Saw: saw, Seconds: time.Since(begin).Seconds()}
		if err != nil {
			failed = true
			d.limit = min(o.Limit, afterFailure)
			r.Saw = err.Error()
			var broken *brokenHop
			if errors.As(err, &broken) {
				r.Hop = broken.hop
			}
		}
		on(r)
	}
	if failed {
		return ErrDemo
	}
	return nil
}

// until repeats look, which says what is lacking, until nothing is. What goes wrong with a look may be better at the next.
func (d *demo) until(ctx context.Context, what string, look func(context.Context) (lacks string, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.limit, fmt.Errorf("given up after %v", d.limit))
	defer cancel()
	return wait.For(ctx, what, d.session.Poll, func(ctx context.Context) (string, bool, error) {
		lacks, err := look(ctx)
		switch {
		case err == nil:
			return lacks, lacks == "", nil
		case errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
			return "", false, nil
		}
		return err.Error(), false, nil
	})
}

// deploy makes the deployment of so many pods, and waits until they are there and no others.
func (d *demo) deploy(ctx context.Context, replicas int) (string, error) {
	data := templates.DemoData{Namespace: demoNamespace, Name: demoName, Image: bundle.DemoImage, Replicas: replicas, Port: demoPort}
	if d.config.Router.Enabled {
		data.Host = d.host
	}
	manifest, err := templates.Demo(data)
	if err != nil {
		return "", err
	}
	err = d.until(ctx, "the example to be taken", func(ctx context.Context) (string, error) { // not while that of a run before is being deleted
		return "", d.api.Apply(ctx, manifest)
	})
	if err != nil {
		return "", err
	}
	err = d.until(ctx, fmt.Sprintf("%d pods", replicas), func(ctx context.Context) (string, error) {
		pods, err := d.api.Pods(ctx, demoNamespace)
		if err != nil {
			return "", err
		}
		d.pods = pods
		for _, p := range pods {
			if !p.Ready {
				return strings.TrimSpace(fmt.Sprintf("pod %s on %s is %s %s %s", p.Name, p.Node, p.Phase, p.Reason, p.Message)), nil
			}
		}
		if len(pods) != replicas {
			return fmt.Sprintf("there are %d pods", len(pods)), nil
		}
		return "", nil
	})
	if err != nil {
		return "", &brokenHop{"pod", err}
	}
	var all []string
	for _, p := range d.pods {
		all = append(all, p.Name+" "+p.Address+" on "+p.Node)
	}
	return strings.Join(all, ", "), nil
}

func (d *demo) pod() (cluster.Pod, error) {
	if len(d.pods) == 0 || d.pods[0].Address == "" {
		return cluster.Pod{}, errors.New("there is no pod with an address")
	}
	return d.pods[0], nil
}

func (d *demo) podFromNode(ctx context.Context) (string, error) {
	p, err := d.pod()
	if err != nil {
		return "", err
	}
	return d.answerOf(ctx, p.Node, p)
}

func (d *demo) podFromVM(ctx context.Context) (string, error) {
	p, err := d.pod()
	if err != nil {
		return "", err
	}
	return d.answerOf(ctx, d.view.Nodes[0].Name, p) // masters have no trunk: they are to pods what any VM is
}

// ports waits until Neutron has the pods' ports, and no others of the namespace, under their names.
func (d *demo) ports(ctx context.Context) (string, error) {
	want := map[string]string{}
	for _, p := range d.pods {
		want[demoNamespace+"/"+p.Name] = p.Address
	}
	if len(want) == 0 {
		return "", errors.New("there are no pods")
	}
	err := d.until(ctx, "the ports to have their pods' names", func(ctx context.Context) (string, error) {
		has, err := d.namedPorts(ctx)
		if err != nil || maps.Equal(has, want) {
			return "", err
		}
		return fmt.Sprintf("Neutron has %s, the cluster %s", list(has), list(want)), nil
	})
	if err != nil {
		return "", &brokenHop{"port", err}
	}
	return list(want), nil
}

// namedPorts are the addresses of Neutron's ports that are named for pods of the example.
func (d *demo) namedPorts(ctx context.Context) (map[string]string, error) {
	i, err := d.session.Discover(ctx)
	if err != nil {
		return nil, err
	}
	has := map[string]string{}
	for _, p := range i.Ports {
		if strings.HasPrefix(p.Name, demoNamespace+"/") && len(p.FixedIPs) > 0 {
			has[p.Name] = p.FixedIPs[0].IPAddress
		}
	}
	return has, nil
}

func list(m map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+" "+m[k])
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// service asks the example's Service from a VM.
func (d *demo) service(ctx context.Context) (string, error) {
	p, err := d.pod()
	if err != nil {
		return "", err
	}
	if d.vip, err = d.api.ClusterIP(ctx, demoNamespace, demoName); err != nil {
		return "", err
	}
	said, err := d.ask(ctx, d.view.Nodes[0].Name, net.JoinHostPort(d.vip, "80"))
	if err == nil && said != p.Name+greeting {
		err = fmt.Errorf("it said %q", said)
	}
	if err != nil {
		return "", d.blame(ctx, fmt.Errorf("asking the Service at %s: %w", d.vip, err), append(d.podHops(p), d.balancerHops(demoNamespace, demoName, p.Address)...))
	}
	return fmt.Sprintf("%s answered %s", d.vip, d.view.Nodes[0].Name), nil
}

// route asks for the example by its name, from here: the name leads to the router's floating IP, and the router to the Service.
func (d *demo) route(ctx context.Context) (string, error) {
	p, err := d.pod()
	if err != nil {
		return "", err
	}
	if _, err := d.session.Discover(ctx); err != nil {
		return "", err
	}
	router := d.routerAddress(d.config)
	if !router.IsValid() {
		return "", &brokenHop{"floating IP", fmt.Errorf("no floating IP leads to a load balancer %s: the stack has no router, or its Service is not served yet", d.session.Name("svc/"+routerService))}
	}
	resolver, at, err := d.resolver(d.config)
	if err != nil {
		return "", err
	}
	if resolver != nil {
		err := d.until(ctx, d.host+" to lead to "+router.String(), func(ctx context.Context) (string, error) {
			found, err := resolver.LookupNetIP(ctx, "ip4", d.host+".")
			if err != nil || slices.Contains(found, router) {
				return "", err
			}
			return fmt.Sprintf("%s says %v", at, found), nil
		})
		if err != nil {
			return "", &brokenHop{"DNS", fmt.Errorf("%w; `kuryrctl dns sync %s` puts names there", err, d.Name)}
		}
	}
	said, err := d.get(ctx, func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.dialer()(ctx, network, netip.AddrPortFrom(router, 80).String())
	}, d.host)
	if err == nil && said != p.Name+greeting {
		err = fmt.Errorf("it said %q", said)
	}
	if err != nil {
		namespace, name, _ := strings.Cut(routerService, "/")
		way := append(d.podHops(p), d.balancerHops(demoNamespace, demoName, p.Address)...)
		return "", d.blame(ctx, fmt.Errorf("asking for %s at %s: %w", d.host, router, err), append(way, d.balancerHops(namespace, name, "")...))
	}
	if resolver == nil {
		return fmt.Sprintf("%s answered at %s, asked for by name; no place for names is declared, so DNS was not", d.host, router), nil
	}
	return fmt.Sprintf("%s is %s by %s, and answered", d.host, router, at), nil
}

// allAnswer asks the Service until every pod was heard.
func (d *demo) allAnswer(ctx context.Context) (string, error) {
	if d.vip == "" || len(d.pods) != demoScaled {
		return "", fmt.Errorf("there is no Service, or not %d pods", demoScaled)
	}
	heard := map[string]int{}
	err := d.until(ctx, "every pod to answer", func(ctx context.Context) (string, error) {
		for range 4 * demoScaled {
			said, err := d.ask(ctx, d.view.Nodes[0].Name, net.JoinHostPort(d.vip, "80"))
			if err != nil {
				return "", err
			}
			heard[strings.TrimSuffix(said, greeting)]++
		}
		for _, p := range d.pods {
			if heard[p.Name] == 0 {
				return fmt.Sprintf("%s was not heard among %v", p.Name, heard), nil
			}
		}
		return "", nil
	})
	if err == nil {
		return fmt.Sprintf("%d different pods answered", len(d.pods)), nil
	}
	for _, p := range d.pods {
		if heard[p.Name] == 0 {
			return "", d.blame(ctx, err, append(d.podHops(p), d.balancerHops(demoNamespace, demoName, p.Address)...))
		}
	}
	return "", err
}

// remove deletes the namespace, and waits until the cloud has nothing of it.
func (d *demo) remove(ctx context.Context, limit time.Duration) (string, error) {
	d.limit = limit // whatever went before
	if err := d.api.DeleteNamespace(ctx, demoNamespace); err != nil {
		return "", err
	}
	err := d.until(ctx, "the example to be gone", func(ctx context.Context) (string, error) {
		there, err := d.api.HasNamespace(ctx, demoNamespace)
		if err != nil {
			return "", err
		}
		if there {
			return "the namespace is being deleted", nil
		}
		has, err := d.namedPorts(ctx)
		if err != nil {
			return "", err
		}
		if len(has) > 0 {
			return "ports: " + list(has), nil
		}
		for _, l := range d.session.Inventory().LoadBalancers {
			if strings.HasPrefix(l.Name, d.session.Name("svc/"+demoNamespace+"/")) {
				return "load balancer " + l.Name, nil
			}
		}
		return "", nil
	})
	if err != nil {
		return "", err
	}
	return "no pods, no ports of theirs, no load balancers", nil
}
