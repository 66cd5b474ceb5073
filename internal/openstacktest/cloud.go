package openstacktest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Cloud is one fake OpenStack. All methods may be called while clients talk to it.
type Cloud struct {
	t      testing.TB
	server *httptest.Server
	mux    *http.ServeMux
	yaml   string

	mu     sync.Mutex // guards everything below, and is held while a request is answered
	knobs  knobs
	dice   *rand.Rand
	faults faults
	log    []Request

	identity identity
	network  networking
	compute  compute
	images   *table[*image]
	volumes  volumes
	balancer balancer
	names    names
}

// New starts a cloud that closes itself with the test. It holds the seed only:
// an external network public (172.24.4.0/24, subnet public-v4, owned by admin),
// the image debian-13, flavors m1.small, m1.medium and m1.large, the projects
// demo and admin, and demo's security group default.
func New(t testing.TB, options ...Option) *Cloud {
	t.Helper()
	c := &Cloud{t: t, mux: http.NewServeMux(), knobs: defaults(),
		// A fixed seed makes a failing run repeatable; ids still come in no
		// order, so nobody can rely on listings being sorted by creation.
		dice: rand.New(rand.NewPCG(1, 2))}
	for _, o := range options {
		o(&c.knobs)
	}
	c.faults.heal()
	c.identity = newIdentity(c)
	c.network = newNetwork()
	c.compute = newCompute()
	c.images = newTable[*image]("image")
	c.volumes = volumes{newTable[*volumeType]("volume_type"), newTable[*volume]("volume")}
	c.balancer = newBalancer()
	c.names = names{newTable[*zone]("zone"), newTable[*recordSet]("recordset")}
	c.seed()
	c.routes()
	dir := t.TempDir()
	c.server = httptest.NewUnstartedServer(c.mux)
	if c.knobs.certEnds.IsZero() {
		c.server.Start()
	} else {
		c.startTLS(filepath.Join(dir, caFile))
	}
	t.Cleanup(c.server.Close)
	c.yaml = filepath.Join(dir, "clouds.yaml")
	if err := os.WriteFile(c.yaml, []byte(c.cloudsYAML()), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// AuthURL is Keystone's address as a clouds.yaml names it.
func (c *Cloud) AuthURL() string { return c.server.URL + prefixIdentity + "/v3" }

// ProjectID is the id of the project demo.
func (c *Cloud) ProjectID() string { return c.identity.demo.ID }

// CloudsYAML is the path of a clouds.yaml (mode 0600) with the clouds "fake"
// (user and project demo, roles member and load-balancer_member) and
// "fake-admin" (user and project admin, role admin).
func (c *Cloud) CloudsYAML() string { return c.yaml }

func (c *Cloud) cloudsYAML() string {
	ca := ""
	if !c.knobs.certEnds.IsZero() {
		ca = "    cacert: " + filepath.Join(filepath.Dir(c.yaml), caFile) + "\n"
	}
	entry := func(cloud, user string) string {
		return fmt.Sprintf(`  %s:
    auth_type: password
    auth:
      auth_url: %s
      username: %s
      password: %s
      project_name: %s
      user_domain_name: Default
      project_domain_name: Default
    region_name: %s
    interface: public
    identity_api_version: 3
`, cloud, c.AuthURL(), user, password(user), user, region) + ca
	}
	return "clouds:\n" + entry("fake", "demo") + entry("fake-admin", "admin")
}

// routes registers every service; what is not registered fails the test.
func (c *Cloud) routes() {
	c.identityRoutes()
	c.networkRoutes()
	c.computeRoutes()
	c.imageRoutes()
	c.volumeRoutes()
	c.balancerRoutes()
	c.nameRoutes()
	c.mux.HandleFunc("/", c.handle(route{service: "", open: true, do: unknownRoute}))
}

// seed fills the new cloud; what exists afterwards is never reported by Left.
func (c *Cloud) seed() {
	c.seedNetwork()
	c.seedCompute()
	c.seedNames()
	for _, name := range c.knobs.volumeTypes {
		x := &volumeType{Name: name}
		x.ID = c.newID()
		c.volumes.types.add(x)
	}
	for _, s := range c.tables() {
		for _, r := range s.all() {
			r.head().seed = true
		}
	}
}

// newID is a random UUID as OpenStack makes them (version 4).
func (c *Cloud) newID() string {
	a, b := c.dice.Uint64(), c.dice.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
}

// newHex is an id without dashes, as Keystone and octets of Nova make them.
func (c *Cloud) newHex() string { return fmt.Sprintf("%016x%016x", c.dice.Uint64(), c.dice.Uint64()) }

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

func stamp() string { return now().Format(time.RFC3339) }
