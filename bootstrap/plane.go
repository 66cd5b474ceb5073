package bootstrap

import (
	"context"
	"crypto/rand"
	"net/netip"
	"strings"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/templates"
)

// etcdPort is where etcd serves its clients.
const etcdPort = 2379

// Init is the first control plane, made by `kubeadm init`. Its etcd is on the node itself, or on the nodes of etcd if there are any.
func (c *Cluster) Init(n *Node, etcd []*Node, needs ...graph.Resource) graph.Resource {
	s := &step{key: graph.Key("control-plane." + n.Name), node: n, needs: needs}
	s.look = func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		return lookAtJob(ctx, client, "init", "runs")
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		return runJob(ctx, client, "init", "", func() error {
			config, err := c.initConfig(ctx, n, client, etcd)
			if err != nil {
				return err
			}
			if len(etcd) > 0 {
				if err := copyFiles(ctx, etcd[0], client, "pki/etcd/ca.crt", "pki/apiserver-etcd-client.crt", "pki/apiserver-etcd-client.key"); err != nil {
					return err
				}
			}
			if _, err := client.Run(ctx, ssh.Command{Line: templates.Script("encryption", nil), Sudo: true}); err != nil {
				return err
			}
			return write(ctx, client, append(planeFiles(), file{configDir + "init.yaml", 0o600, config}))
		})
	}
	return s
}

// configDir holds what the API server reads beside what kubeadm writes.
const configDir = "/etc/kubernetes/kuryrctl/"

func planeFiles() []file {
	return []file{
		{configDir + "audit-policy.yaml", 0o600, templates.NodeFile("audit-policy.yaml")},
		{configDir + "admission.yaml", 0o600, templates.NodeFile("admission.yaml")},
	}
}

func (c *Cluster) initConfig(ctx context.Context, n *Node, client *ssh.Client, etcd []*Node) ([]byte, error) {
	registration, err := c.registration(ctx, n, client)
	if err != nil {
		return nil, err
	}
	r, err := c.release(ctx, n, client)
	if err != nil {
		return nil, err
	}
	image, err := ref(r, "etcd")
	if err != nil {
		return nil, err
	}
	d := templates.KubeadmInitData{
		Node: registration, Cluster: c.Name, Version: r.Version, Endpoint: c.Endpoint, APIPort: apiPort, SANs: []string{c.Public().String()},
		ServiceCIDR: c.ServiceCIDR, ClusterDNS: DNSAddress(c.ServiceCIDR), DNSDomain: c.DNSDomain, EtcdTag: tag(image), Token: throwAwayToken(),
	}
	for _, e := range etcd {
		d.EtcdEndpoints = append(d.EtcdEndpoints, "https://"+netip.AddrPortFrom(e.Address(), etcdPort).String())
	}
	return templates.KubeadmInit(d)
}

func (c *Cluster) registration(ctx context.Context, n *Node, client *ssh.Client) (templates.Registration, error) {
	f, err := n.known(ctx, client)
	if err != nil {
		return templates.Registration{}, err
	}
	return templates.Registration{Name: n.Name, Address: n.Address(), Ignore: f.ignored()}, nil
}

// DNSAddress is the ClusterIP of the cluster's DNS, the tenth address of the services, as everywhere.
func DNSAddress(services netip.Prefix) netip.Addr {
	a := services.Masked().Addr()
	for range 10 {
		a = a.Next()
	}
	return a
}

// throwAwayToken has the form of a bootstrap token: six characters, a dot, sixteen. It is known to nobody and ends after a minute.
func throwAwayToken() string {
	text := strings.ToLower(rand.Text()) // 26 characters of base32
	return text[:6] + "." + text[6:22]
}

// JoinControlPlane is one more control plane, with a member of the etcd that first has. It shares the first one's authorities.
func (c *Cluster) JoinControlPlane(n, first *Node, needs ...graph.Resource) graph.Resource {
	return c.join(n, graph.Key("control-plane."+n.Name), joining{first: first, controlPlane: true}, needs...)
}

// authorities are what control planes have in common; kubeadm derives all else from them.
var authorities = []string{"pki/ca.crt", "pki/ca.key", "pki/sa.key", "pki/sa.pub", "pki/front-proxy-ca.crt", "pki/front-proxy-ca.key",
	"pki/etcd/ca.crt", "pki/etcd/ca.key", "kuryrctl/encryption.yaml"}

// copyFiles copies files below /etc/kubernetes from one host to another, through this process and no file on this machine.
func copyFiles(ctx context.Context, from *Node, to *ssh.Client, names ...string) error {
	source, err := from.Connect(ctx)
	if err != nil {
		return err
	}
	archive, err := source.Run(ctx, ssh.Command{Line: "# read keys\ntar -c -C /etc/kubernetes " + strings.Join(names, " "), Sudo: true, Secret: true})
	if err != nil {
		return err
	}
	_, err = to.Run(ctx, ssh.Command{Line: "# write keys\nmkdir -p /etc/kubernetes\ntar -x -p -C /etc/kubernetes --no-same-owner", Stdin: strings.NewReader(archive.Stdout), Sudo: true})
	return err
}
