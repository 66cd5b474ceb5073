package templates

import (
	"embed"
	"encoding/base64"
	"net/netip"
)

//go:embed files/addon
var addon embed.FS

// RegistryData is what the registry of images is made with.
type RegistryData struct {
	Image    string
	Address  netip.Addr // its ClusterIP
	Node     string     // whose disk has the images, without a claim
	Claim    string     // the PersistentVolumeClaim that has them, in the registry's namespace
	Insecure bool       // plain HTTP for everybody
	Secret   map[string][]byte
	Digest   string // of what the registry reads when it starts
}

// Registry renders the manifest of the registry.
func Registry(d RegistryData) ([]byte, error) {
	encoded := map[string]string{}
	for key, value := range d.Secret {
		encoded[key] = base64.StdEncoding.EncodeToString(value)
	}
	return renderAddon("registry.yaml", struct {
		RegistryData
		Secret map[string]string
	}{d, encoded})
}

// RegistryHosts renders containerd's hosts.toml for a registry at a URL. The authorization is the value of the header of that name; ""
// is one that asks for none, and has no certificate.
func RegistryHosts(url, authorization string) ([]byte, error) {
	return renderAddon("hosts.toml", struct{ URL, Authorization string }{url, authorization})
}

// RouterData is what the router is made with.
type RouterData struct {
	Image       string
	Replicas    int
	HostNetwork bool // on the nodes' own network and ports, not on a pod's
}

// Router renders the manifest of the router.
func Router(d RouterData) ([]byte, error) { return renderAddon("router.yaml", d) }

func renderAddon(name string, data any) ([]byte, error) {
	text, err := addon.ReadFile("files/addon/" + name + ".tmpl")
	if err != nil {
		panic(err) // the names are in this program, and so are the files
	}
	return render(name, string(text), data)
}
