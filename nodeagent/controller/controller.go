// Package controller is the cluster's side of pods on Neutron: it owns a SubportPool for each worker, and keeps in it as many subports
// as the pods of that worker need (see package subport for what it does to Neutron).
//
// Of several controllers one works, by Lease, and it asks before each call that changes something whether it still is that one. It
// works from informers, one node at a time by a queue; every pass looks at everything of its node anew, so a pass that failed is
// simply done again, later. What is wrong is told in the pool's conditions and, when it begins or changes, by an Event.
//
// It refuses finalizers, and to stand between a pod and its deletion in any other way. It knows no network policies and no services.
//
// Start reading at [Run], then reconcile.go.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/nodeagent/subport"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// Options say what a controller works on. What is not said to have a default must be set.
type Options struct {
	Kube           *rest.Config
	Cloud          *openstack.Cloud
	Stack          string
	PodNetwork     string // name; "" means STACK/pod_net
	SecurityGroup  string // name; "" means STACK/pod_access
	Min            int    // free subports to keep on each worker
	Max            int    // subports of a worker at most
	Batch          int    // subports made at once
	TTL            time.Duration
	LeaseNamespace string
	Identity       string // among the controllers: unique
	Log            *slog.Logger
	// Beside works on something else while the Lease is held: it is called when that begins and must return soon after ctx has ended. It asks
	// mayWrite before each call that changes something. Nil is nothing.
	Beside func(ctx context.Context, mayWrite func() error)

	// The rest is for tests, and 0 means what is written here.
	Lease    time.Duration // 15 s: how long a controller that is silent is waited for; whole seconds, since a Lease keeps nothing smaller
	Backoff  time.Duration // 500 ms: before the second try of what failed; twice as long before each further one, up to a minute
	Resync   time.Duration // 5 min: what is known of Neutron is read anew after it
	Patience time.Duration // see subport.Options
}

// atOnce is how many nodes are worked on at once, and calls that change something in Neutron made, while the cloud bears it.
const atOnce = 4

// LeaseName is the name of the Lease, by which one of several controllers works.
const LeaseName = "kuryr-controller"

// Controller is one of the cluster's controllers, working or waiting.
type Controller struct {
	o     Options
	kube  kubernetes.Interface
	pools rest.Interface

	nodeStore, namespaceStore, poolStore cache.Store
	podStore                             cache.Indexer
	informers                            []cache.Controller

	queue workqueue.TypedDelayingInterface[string]

	working sync.Mutex // held while leading

	mu         sync.Mutex
	elector    *leaderelection.LeaderElector // of the present attempt
	network    *subport.Network              // while leading
	nodes      map[string]*node              // while leading
	complaints map[string]string             // while leading: values of annotations that an Event was written about
	suspects   map[string]bool               // while leading: ports that a look found to be nobody's
	told       time.Time                     // while leading: when suspects were found last
	count      *metrics
	pace       *subport.Pace
}

// sweep is the key of the pass over everything at once: it cannot be a node's name.
const sweep = ""

// New makes a controller. Nothing is sent yet.
func New(o Options) (*Controller, error) {
	o.PodNetwork = cmp.Or(o.PodNetwork, o.Stack+"/pod_net")
	o.SecurityGroup = cmp.Or(o.SecurityGroup, o.Stack+"/pod_access")
	o.Lease, o.Backoff, o.Resync = cmp.Or(o.Lease, 15*time.Second), cmp.Or(o.Backoff, 500*time.Millisecond), cmp.Or(o.Resync, 5*time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Stack == "":
		return nil, errors.New("no stack is named: whose ports are to be kept?")
	case o.Min < 0 || o.Batch < 1 || o.Max < o.Min || o.Max > 4094:
		return nil, fmt.Errorf("min %d, max %d and batch %d do not fit: 0 <= min <= max <= 4094, batch >= 1", o.Min, o.Max, o.Batch)
	}
	if o.Lease < time.Second || o.Lease%time.Second != 0 {
		// A Lease tells its duration in seconds: of half a second others read none, and take it while it is held.
		return nil, fmt.Errorf("a lease of %s: it must be a number of whole seconds", o.Lease)
	}
	cfg := rest.CopyConfig(o.Kube)
	cfg.QPS = -1 // the API server's own fairness is the limit
	cfg.UserAgent = "kuryr-controller"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	cfg.ContentType = "application/json"
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := vif.AddToScheme(scheme); err != nil {
		return nil, err
	}
	own := rest.CopyConfig(cfg)
	own.APIPath, own.AcceptContentTypes = "/apis", "application/json"
	own.GroupVersion = &vif.GroupVersion
	own.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	pools, err := rest.RESTClientFor(own)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	c := &Controller{o: o, kube: kube, pools: pools, nodes: map[string]*node{}, count: newMetrics(), pace: subport.NewPace(atOnce)}
	o.Cloud.Observe(c.sent)
	c.queue = workqueue.NewTypedDelayingQueue[string]()
	c.watch()
	return c, nil
}

// Run works until the context ends, or waits for its turn to. It returns after the last call has ended and the Lease is given up.
func (c *Controller) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ctx = logr.NewContext(ctx, logr.FromSlogHandler(c.o.Log.Handler())) // what client-go has to say
	for _, i := range c.informers {
		all.Go(func() { i.RunWithContext(ctx) })
	}
	for _, i := range c.informers {
		if !cache.WaitForCacheSync(ctx.Done(), i.HasSynced) {
			return context.Cause(ctx)
		}
	}
	defer c.queue.ShutDown()
	for ctx.Err() == nil {
		if err := c.term(ctx); err != nil {
			return err
		}
	}
	return nil
}

// term waits for the Lease and works while it is held.
func (c *Controller) term(ctx context.Context) error {
	// The Lease is given up after the work has ended, not at the same time: hence a context of its own.
	holding, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: c.o.LeaseNamespace, Name: LeaseName},
			Client:     c.kube.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: c.o.Identity},
		},
		Name:            LeaseName,
		LeaseDuration:   c.o.Lease,
		RenewDeadline:   c.o.Lease * 2 / 3,
		RetryPeriod:     c.o.Lease * 2 / 15,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				c.working.Lock()
				defer c.working.Unlock()
				defer giveUp()
				leading, cancel := context.WithCancel(leading)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				c.lead(leading)
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("preparing the election: %w", err)
	}
	c.mu.Lock()
	c.elector = elector
	c.mu.Unlock()
	defer context.AfterFunc(ctx, func() {
		if !elector.IsLeader() {
			giveUp()
		}
	})()
	elector.Run(holding)
	c.working.Lock() // until the work has ended, if it began
	defer c.working.Unlock()
	return nil
}

// mayWrite tells whether the Lease is held. It is as good as the Lease's own promise: another controller waits for its whole duration
// after the last renewal that it has seen, and here it counts as lost after two thirds of that.
func (c *Controller) mayWrite() error {
	c.mu.Lock()
	elector := c.elector
	c.mu.Unlock()
	if elector == nil || !elector.IsLeader() {
		return errors.New("another controller holds the lease, or none")
	}
	if elector.Check(-c.o.Lease/3) != nil {
		return errors.New("the lease was not renewed in time")
	}
	return nil
}

// lead works while the Lease is held. What an earlier term knew is forgotten: another controller may have worked since.
func (c *Controller) lead(ctx context.Context) {
	c.o.Log.Info("leading", "identity", c.o.Identity)
	defer c.o.Log.Info("no longer leading")
	var workers sync.WaitGroup
	defer workers.Wait()
	if c.o.Beside != nil {
		workers.Go(func() { c.o.Beside(ctx, c.mayWrite) })
	}
	network := c.open(ctx)
	if network == nil {
		return
	}
	c.mu.Lock()
	c.network, c.nodes, c.complaints = network, map[string]*node{}, map[string]string{}
	c.suspects, c.told = map[string]bool{}, time.Time{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.network = nil
		c.mu.Unlock()
	}()
	c.queue.Add(sweep)
	for _, name := range c.names() {
		c.queue.Add(name)
	}
	for range atOnce {
		workers.Go(func() { c.work(ctx) })
	}
	<-ctx.Done()
	c.queue.Add(sweep) // wakes one worker, which wakes the next
	workers.Wait()
}

// open finds the pod network, however long that takes.
func (c *Controller) open(ctx context.Context) *subport.Network {
	for wait := c.o.Backoff; ; wait = min(2*wait, time.Minute) {
		network, err := subport.Open(ctx, c.o.Cloud, subport.Options{
			Stack: c.o.Stack, PodNetwork: c.o.PodNetwork, SecurityGroup: c.o.SecurityGroup, MayWrite: c.mayWrite, Patience: c.o.Patience,
			Pace: c.pace, Failed: c.count.failed,
		})
		if err == nil {
			return network
		}
		if ctx.Err() != nil {
			return nil
		}
		c.o.Log.Error("looking for the pod network", "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Controller) work(ctx context.Context) {
	for {
		name, shutdown := c.queue.Get()
		if ctx.Err() != nil || shutdown {
			c.queue.Done(name)
			c.queue.Add(sweep)
			return
		}
		var again time.Duration
		var err error
		if name == sweep {
			again, err = c.sweep(ctx)
		} else {
			again, err = c.visit(ctx, name)
		}
		c.queue.Done(name)
		if err != nil && ctx.Err() == nil {
			c.count.add("reconcile_errors_total", 1)
			c.o.Log.Warn("reconciling", "node", name, "again", again.Round(time.Millisecond), "error", err)
		}
		if again > 0 {
			c.queue.AddAfter(name, again)
		}
	}
}
