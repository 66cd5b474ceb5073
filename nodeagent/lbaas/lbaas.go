// Package lbaas serves the cluster's Services by Octavia: a load balancer for each, whose VIP is the ClusterIP and whose members are the
// endpoints, and for those of type LoadBalancer a floating IP and the security group's rules that let clients in.
//
// What a Service asks for is computed by a pure function (desired.go), held against what is (diff.go), and brought nearer by one change of
// a load balancer at a time, since Octavia refuses others while one is under way. Every pass looks at everything of its Service anew; a pass
// that failed is done again, later. Nothing is remembered that the cloud does not know: a load balancer tells its Service by its name, a
// floating IP by its description. What belongs to no Service is removed, so there is no finalizer that could stand in the way of a
// deletion. What a Service asks for and does not get is told by an Event, never passed over.
//
// It refuses to touch a load balancer that does not bear the stack's mark and such a name; that of default/kubernetes is the stack's.
//
// Start reading at [Services.Lead], then reconcile.go.
package lbaas

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Options say what is served by what. All but the last group must be set.
type Options struct {
	Kube     *rest.Config
	Cloud    *openstack.Cloud
	Stack    string
	Identity string // among the controllers: unique
	Log      *slog.Logger

	// The rest is for tests, and 0 means what is written here.
	Linger   time.Duration // 200 ms: changes of endpoints within it are made in one
	Farewell time.Duration // 20 s: the same in a namespace that is being deleted
	Poll     time.Duration // 1 s: between two looks at what is under way
	Backoff  time.Duration // 1 s: before the second try of what failed; twice as long before each further one, up to a minute
	Resync   time.Duration // 5 min: what is known of the cloud is read anew after it
	Patience time.Duration // 10 min: a load balancer may be PENDING that long before it is told
	Settle   time.Duration // 1 min: parts of an ACTIVE load balancer may be PENDING that long without any progress before they are lost
	LeakAge  time.Duration // 1 min: how old a port must be to be taken for one that a load balancer left behind
}

// Services keeps load balancers for the Services of a cluster.
type Services struct {
	o    Options
	kube kubernetes.Interface

	mu    sync.Mutex
	count map[string]float64 // metrics, by name with labels
}

// farewell is longer than what Kubernetes waits before it looks again at a namespace whose pods end (half of their 30 s of grace, and one
// more), so that the members of a Service that goes are changed in one call or none. It is no longer since a finalizer may keep a namespace
// for hours, and a member that ended must not be served for long: another pod may have its address. New pods do not come there.
const farewell = 20 * time.Second

// New makes what serves Services. Nothing is sent yet.
func New(o Options) (*Services, error) {
	o.Linger, o.Poll = cmp.Or(o.Linger, 200*time.Millisecond), cmp.Or(o.Poll, time.Second)
	o.Farewell = cmp.Or(o.Farewell, farewell)
	o.Backoff, o.Resync = cmp.Or(o.Backoff, time.Second), cmp.Or(o.Resync, 5*time.Minute)
	o.Patience, o.Settle, o.LeakAge = cmp.Or(o.Patience, 10*time.Minute), cmp.Or(o.Settle, time.Minute), cmp.Or(o.LeakAge, time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Stack == "" {
		return nil, errors.New("no stack is named: whose load balancers are to be kept?")
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
	return &Services{o: o, kube: kube, count: map[string]float64{}}, nil
}

// term is one time of leading. What an earlier one knew is forgotten: another controller may have worked since.
type term struct {
	*Services
	mayWrite func() error
	queue    workqueue.TypedDelayingInterface[string]
	services cache.Store
	slices   cache.Indexer
	leaving  cache.Store // namespaces that are being deleted
	cloud    *cloud

	mu      sync.Mutex
	items   map[string]*item
	noTrees bool // the provider makes no load balancer with what is in it

	// The firewall's alone.
	shut     map[types.UID]bool // Services that were told that clients do not get in
	stumbles int                // how often it failed, one after the other
}

// Keys of the queue that are no Service's, whose keys are namespace/name.
const (
	sweep    = "sweep"    // everything at once
	firewall = "firewall" // what is let in to pods
)

// Lead serves Services until ctx ends, asking mayWrite before each call that changes something. It returns after the last call has ended.
func (s *Services) Lead(ctx context.Context, mayWrite func() error) {
	var all sync.WaitGroup
	defer all.Wait()
	t := &term{Services: s, mayWrite: mayWrite, queue: workqueue.NewTypedDelayingQueue[string](), items: map[string]*item{}}
	defer t.queue.ShutDown()
	informers := t.watch()
	for _, i := range informers {
		all.Go(func() { i.RunWithContext(ctx) })
	}
	// Until all Services are known, none may be taken for deleted.
	for _, i := range informers {
		if !cache.WaitForCacheSync(ctx.Done(), i.HasSynced) {
			return
		}
	}
	if t.cloud = t.open(ctx); t.cloud == nil {
		return
	}
	t.queue.Add(sweep)
	for range 4 {
		all.Go(func() { t.work(ctx) })
	}
	<-ctx.Done()
	t.queue.ShutDown()
}

// open finds the stack's networks, however long that takes.
func (t *term) open(ctx context.Context) *cloud {
	for wait := t.o.Backoff; ; wait = min(2*wait, time.Minute) {
		c, err := open(ctx, t.o.Cloud, t.o.Stack, t.mayWrite)
		if err == nil {
			return c
		}
		if ctx.Err() != nil {
			return nil
		}
		t.o.Log.Error("looking for the stack's networks", "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// watch prepares the informers.
func (t *term) watch() []cache.Controller {
	// Endpoints come and go in bursts, and one call replaces all members of a pool.
	on := func(key func(o any) string, linger func(key string) time.Duration) cache.ResourceEventHandler {
		add := func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if k := key(o); k != "" {
				t.queue.AddAfter(k, linger(k))
			}
		}
		return cache.ResourceEventHandlerFuncs{AddFunc: add, DeleteFunc: add, UpdateFunc: func(_, is any) { add(is) }}
	}
	all := func(*metav1.ListOptions) {}
	var services, endpoints, namespaces cache.Controller
	t.services, services = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewFilteredListWatchFromClient(t.kube.CoreV1().RESTClient(), "services", "", all),
		ObjectType:    &corev1.Service{},
		Handler: on(func(o any) string {
			s := o.(*corev1.Service)
			return s.Namespace + "/" + s.Name
		}, func(string) time.Duration { return t.o.Linger / 4 }),
		Transform: strip,
	})
	store, endpoints := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewFilteredListWatchFromClient(t.kube.DiscoveryV1().RESTClient(), "endpointslices", "", all),
		ObjectType:    &discoveryv1.EndpointSlice{},
		Handler:       on(serviceOf, t.linger),
		Transform:     strip,
		Indexers:      cache.Indexers{byService: func(o any) ([]string, error) { return []string{serviceOf(o)}, nil }},
	})
	t.slices = store.(cache.Indexer)
	t.leaving, namespaces = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewFilteredListWatchFromClient(t.kube.CoreV1().RESTClient(), "namespaces", "", func(o *metav1.ListOptions) {
			o.FieldSelector = "status.phase=" + string(corev1.NamespaceTerminating)
		}),
		ObjectType: &corev1.Namespace{},
		Handler:    cache.ResourceEventHandlerFuncs{},
	})
	return []cache.Controller{services, endpoints, namespaces}
}

// linger is how long changes of a Service's endpoints are gathered.
func (t *term) linger(service string) time.Duration {
	namespace, _, _ := strings.Cut(service, "/")
	if _, leaving, _ := t.leaving.GetByKey(namespace); leaving { // from memory: it cannot fail
		return t.o.Farewell
	}
	return t.o.Linger
}

const byService = "service"

// serviceOf is the key of the Service that a slice belongs to, or "".
func serviceOf(o any) string {
	s := o.(*discoveryv1.EndpointSlice)
	if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
		return s.Namespace + "/" + name
	}
	return ""
}

// strip drops what does not matter here and is large.
func strip(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.Service:
		o.ManagedFields = nil
	case *discoveryv1.EndpointSlice:
		o.ManagedFields = nil
		for i := range o.Endpoints {
			e := &o.Endpoints[i]
			o.Endpoints[i] = discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions}
		}
	}
	return o, nil
}

func (t *term) work(ctx context.Context) {
	for {
		key, shutdown := t.queue.Get()
		if shutdown {
			return
		}
		if ctx.Err() != nil {
			t.queue.Done(key)
			continue // until the queue, which is shut down, is empty
		}
		var again time.Duration
		var err error
		switch key {
		case sweep:
			again, err = t.sweep(ctx)
		case firewall:
			again, err = t.firewall(ctx)
		default:
			again, err = t.visit(ctx, key)
		}
		if err != nil && ctx.Err() == nil {
			t.add("service_errors_total", 1)
			t.o.Log.Warn("serving", "service", key, "again", again.Round(time.Millisecond), "error", err)
		}
		t.queue.Done(key)
		if again > 0 {
			t.queue.AddAfter(key, again)
		}
	}
}

// service is a Service as it is, or nil.
func (t *term) service(key string) *corev1.Service {
	o, ok, _ := t.services.GetByKey(key) // from memory: it cannot fail
	if !ok {
		return nil
	}
	return o.(*corev1.Service)
}

func (t *term) endpoints(key string) (all []*discoveryv1.EndpointSlice) {
	found, _ := t.slices.ByIndex(byService, key) // the index is there
	for _, o := range found {
		all = append(all, o.(*discoveryv1.EndpointSlice))
	}
	return all
}
