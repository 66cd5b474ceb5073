package templates

import (
	"embed"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/template"
)

//go:embed files/node
var node embed.FS

// NodeFile returns a file that every node has as it is, by its name below files/node.
func NodeFile(name string) []byte {
	text, err := node.ReadFile("files/node/" + name)
	if err != nil {
		panic(err) // the names are in this program, and so are the files
	}
	return text
}

// Script is a shell script from files/node with values for its variables. Its first line, a comment if it has one, names it in
// errors. Values are quoted: nothing in them is run.
func Script(name string, values map[string]string) string {
	title, body, _ := strings.Cut(string(NodeFile(name+".sh")), "\n")
	if !strings.HasPrefix(title, "# ") {
		title, body = "# "+strings.ReplaceAll(name, "-", " "), title+"\n"+body
	}
	var out strings.Builder
	// sudo's path leaves /usr/local out on some distributions.
	out.WriteString(title + "\nPATH=$PATH:/usr/local/bin:/usr/sbin:/sbin\n")
	for _, key := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&out, "%s='%s'\n", key, strings.ReplaceAll(values[key], "'", `'\''`))
	}
	return out.String() + body
}

// ContainerdConfig renders /etc/containerd/config.toml (version 3, containerd 2.x). pause is the image of sandboxes, which is never
// collected as garbage.
func ContainerdConfig(pause string) ([]byte, error) {
	return renderNode("containerd.toml", struct{ Pause string }{pause})
}

// Registration is a node as kubeadm registers it.
type Registration struct {
	Name    string // its host name, see [CloudInitData]
	Address netip.Addr
	Ignore  []string // preflight checks of kubeadm that may fail
	Taints  []string // keys, with the effect NoSchedule; none leaves it to kubeadm
}

// KubeadmInitData is what makes the first control plane.
type KubeadmInitData struct {
	Node          Registration
	Cluster       string // the name in kubeconfigs
	Version       string // v1.37.1
	Endpoint      netip.AddrPort
	APIPort       int
	SANs          []string // of the API's certificate, beside those that kubeadm adds
	ServiceCIDR   netip.Prefix
	ClusterDNS    netip.Addr
	DNSDomain     string
	EtcdTag       string   // of the image; used when EtcdEndpoints is empty
	EtcdEndpoints []string // URLs of an etcd elsewhere
	Token         string   // a bootstrap token for the minute that init takes; kubeadm makes one for a day otherwise
}

// KubeadmInit renders the configuration of `kubeadm init`, kubeadm.k8s.io/v1beta4: encryption at rest, an audit log and pod security
// from the start, no kube-proxy and no DNS, whose work others do here.
func KubeadmInit(d KubeadmInitData) ([]byte, error) { return renderNode("kubeadm-init.yaml", d) }

// KubeadmJoinData is what lets one node join.
type KubeadmJoinData struct {
	Node         Registration
	Endpoint     netip.AddrPort
	Token        string
	CAHash       string // "sha256:" and the digest of the CA's public key (RFC 7469, 2.4)
	ControlPlane bool
	APIPort      int
}

// KubeadmJoin renders the configuration of `kubeadm join`, kubeadm.k8s.io/v1beta4.
func KubeadmJoin(d KubeadmJoinData) ([]byte, error) { return renderNode("kubeadm-join.yaml", d) }

func renderNode(name string, data any) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(node, "files/node/registration.tmpl", "files/node/"+name+".tmpl")
	if err != nil {
		return nil, fmt.Errorf("parsing template %s: %w", name, err)
	}
	return execute(t.Lookup(name+".tmpl"), name, data)
}
