package templates

import (
	"embed"
	"net/netip"
)

//go:embed files/kuryr
var kuryr embed.FS

// KuryrFile returns a file of the pod network that is the same everywhere, by its name below files/kuryr.
func KuryrFile(name string) []byte {
	text, err := kuryr.ReadFile("files/kuryr/" + name)
	if err != nil {
		panic(err) // the names are in this program, and so are the files
	}
	return text
}

// KuryrCloud is what clouds.yaml tells the controller.
type KuryrCloud struct {
	AuthURL           string
	ID, Secret        string            // of the application credential
	Region, Interface string            // "" leaves it to the catalog
	Own               map[string]string // further keys: what one service has for itself
	CACert            bool              // there is a file of it
}

// KuryrClouds renders /etc/kuryr/clouds.yaml.
func KuryrClouds(c KuryrCloud) ([]byte, error) { return renderKuryr("clouds.yaml", c) }

// KuryrController renders the controller's unit for a stack. The digest of the program makes another unit of another program.
func KuryrController(digest, stack string) ([]byte, error) {
	return renderKuryr("kuryr-controller.service", struct{ Digest, Stack string }{digest, stack})
}

// KuryrDaemon renders the daemon's unit for a node.
func KuryrDaemon(digest, node string) ([]byte, error) {
	return renderKuryr("kuryr-daemon.service", struct{ Digest, Node string }{digest, node})
}

func renderKuryr(name string, data any) ([]byte, error) {
	return render(name, string(KuryrFile(name+".tmpl")), data)
}

// DNS is what the manifest of the cluster's DNS is made of.
type DNS struct {
	Image, Domain string
	Address       netip.Addr // of its Service
	Forward       bool       // what is not the cluster's is asked of the resolvers of the node
}

// KuryrDNS renders the manifest of the cluster's DNS.
func KuryrDNS(d DNS) ([]byte, error) { return renderKuryr("dns.yaml", d) }
