package bootstrap

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/templates"
)

// RegistryOptions are what is declared of the registry.
type RegistryOptions struct {
	Enabled  bool
	Storage  *Node  // on whose disk the images are
	Claim    string // the PersistentVolumeClaim that has them instead
	Insecure bool   // plain HTTP for everybody
}

const (
	registryNamespace = "kuryr-registry"
	registryName      = "registry." + registryNamespace + ".svc" // also a host's way to it, which has no DNS of the cluster
	registryPort      = 5000
	registryUser      = "kuryr"
)

// RegistryAddress is the registry's ClusterIP, the twentieth address of the services: hosts reach it, and know it before it is there.
func RegistryAddress(services netip.Prefix) netip.Addr {
	a := services.Masked().Addr()
	for range 20 {
		a = a.Next()
	}
	return a
}

// RegistryURL is where hosts reach the registry.
func RegistryURL(services netip.Prefix, insecure bool) string {
	at := netip.AddrPortFrom(RegistryAddress(services), registryPort).String()
	if insecure {
		return "http://" + at
	}
	return "https://" + at
}

// Registry is a registry of images in the cluster. Its password and its certificate, of the cluster's own authority, are in a Secret of
// the cluster and nowhere else.
func (c *Cluster) Registry(first *Node, o RegistryOptions, needs ...graph.Resource) graph.Resource {
	const key = "addon.registry"
	data := templates.RegistryData{Image: "none", Address: RegistryAddress(c.ServiceCIDR), Claim: o.Claim, Insecure: o.Insecure}
	if o.Storage != nil {
		data.Node = o.Storage.Name
	}
	if !o.Enabled {
		return c.withdraw(key, func() ([]byte, error) { return templates.Registry(data) }, first, needs...)
	}
	a := addon{key: key, namespace: registryNamespace, deployment: "registry"}
	a.manifest = func(ctx context.Context, client *ssh.Client, api *cluster.Cluster, allowed bool) ([]byte, *graph.State, error) {
		image, err := c.image(ctx, first, client, "registry")
		if err != nil {
			return nil, nil, err
		}
		d := data
		d.Image = image
		if !o.Insecure {
			secret, err := api.Secret(ctx, registryNamespace, "registry")
			if err != nil {
				return nil, nil, err
			}
			problem := registryProblem(secret, api.Authority(), d.Address, time.Now())
			switch {
			case problem != "" && !allowed && secret == nil:
				return nil, &graph.State{Detail: "not installed"}, nil
			case problem != "" && !allowed:
				return nil, &graph.State{Phase: graph.Drifted, Detail: "its secret: " + problem}, nil
			case problem != "":
				if secret, err = c.registrySecret(ctx, first, secret, d.Address); err != nil {
					return nil, nil, err
				}
			}
			d.Secret = secret
		}
		d.Digest = digest(d.Secret)
		manifest, err := templates.Registry(d)
		return manifest, nil, err
	}
	return c.install(a, first, needs...)
}

// digest is of all that is in a Secret.
func digest(secret map[string][]byte) string {
	sum := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(secret)) {
		fmt.Fprintf(sum, "%s %d\n%s", key, len(secret[key]), secret[key])
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

// How long a certificate of the registry is good for, and how long before its end there is a new one.
const (
	certificateLife  = 365 * 24 * time.Hour
	certificateSpare = 60 * 24 * time.Hour
)

// registryProblem says what is wrong with the registry's Secret, or "".
func registryProblem(secret map[string][]byte, authority []byte, address netip.Addr, now time.Time) string {
	if len(secret) == 0 {
		return "there is none"
	}
	for _, key := range []string{"username", "password", "htpasswd", "tls.key"} {
		if len(secret[key]) == 0 {
			return key + " is missing"
		}
	}
	ca, err := certificateOf(authority)
	if err != nil {
		return "the cluster's authority: " + err.Error()
	}
	cert, err := certificateOf(secret["tls.crt"])
	if err != nil {
		return err.Error()
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err = cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: address.String(), CurrentTime: now}); err == nil {
		err = cert.VerifyHostname(registryName)
	}
	if err != nil {
		return err.Error()
	}
	if now.Add(certificateSpare).After(cert.NotAfter) && cert.NotAfter.Before(ca.NotAfter) {
		return "its certificate ends on " + cert.NotAfter.UTC().Format(time.DateOnly)
	}
	return ""
}

func certificateOf(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("there is no certificate in it")
	}
	return x509.ParseCertificate(block.Bytes)
}

// registrySecret makes what is missing or does not fit of the registry's Secret. A password that there is stays: somebody knows it.
func (c *Cluster) registrySecret(ctx context.Context, first *Node, old map[string][]byte, address netip.Addr) (map[string][]byte, error) {
	password := string(old["password"])
	if password == "" || len(old["htpasswd"]) == 0 || string(old["username"]) != registryUser {
		password = rand.Text()
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
		if err != nil {
			return nil, fmt.Errorf("making the registry's password: %w", err)
		}
		old = map[string][]byte{"htpasswd": fmt.Appendf(nil, "%s:%s\n", registryUser, hash)}
	}
	client, err := first.Connect(ctx)
	if err != nil {
		return nil, err
	}
	out, err := client.Run(ctx, ssh.Command{Line: "# read the cluster's authority\ncat /etc/kubernetes/pki/ca.crt /etc/kubernetes/pki/ca.key", Sudo: true, Secret: true})
	if err != nil {
		return nil, err
	}
	crt, key, err := sign([]byte(out.Stdout), address)
	if err != nil {
		return nil, fmt.Errorf("making the registry's certificate: %w", err)
	}
	return map[string][]byte{"username": []byte(registryUser), "password": []byte(password), "htpasswd": old["htpasswd"], "tls.crt": crt, "tls.key": key}, nil
}

// sign makes a server's certificate and its key, in PEM, for the registry. The authority's own are in PEM, too.
func sign(authority []byte, address netip.Addr) (crt, key []byte, err error) {
	var ca *x509.Certificate
	var signer crypto.Signer
	for block, rest := pem.Decode(authority); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			ca, err = x509.ParseCertificate(block.Bytes)
		case "EC PRIVATE KEY":
			signer, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			signer, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			var parsed any
			parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
			signer, _ = parsed.(crypto.Signer)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("reading the cluster's authority: %w", err)
		}
	}
	if ca == nil || signer == nil {
		return nil, nil, errors.New("the cluster's authority has no certificate or no key on the master: it is kept elsewhere, and this needs it")
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	end := now.Add(certificateLife)
	if ca.NotAfter.Before(end) {
		end = ca.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: registryName},
		NotBefore:    now.Add(-10 * time.Minute), // clocks differ
		NotAfter:     end,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, // and not for clients: it opens no API
		DNSNames:     []string{registryName, registryName + ".cluster.local", strings.TrimSuffix(registryName, ".svc"), "localhost"},
		IPAddresses:  []net.IP{net.IP(address.AsSlice()), net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &private.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), nil
}

// RegistryClient is what containerd on a node needs to pull from the registry, for every pod there: where it is, whose certificate it has,
// and the password.
func (c *Cluster) RegistryClient(n *Node, insecure bool, registry graph.Resource, needs ...graph.Resource) graph.Resource {
	s := &step{key: graph.Key("registry." + n.Name), node: n, needs: append(needs, registry)}
	files := func(ctx context.Context) ([]file, error) {
		at := netip.AddrPortFrom(RegistryAddress(c.ServiceCIDR), registryPort).String()
		url, authorization := RegistryURL(c.ServiceCIDR, insecure), ""
		if !insecure {
			api, err := c.API()
			if err != nil {
				return nil, err
			}
			secret, err := api.Secret(ctx, registryNamespace, "registry")
			if err != nil || secret == nil {
				return nil, err
			}
			login := bytes.Join([][]byte{secret["username"], secret["password"]}, []byte(":"))
			authorization = "Basic " + base64.StdEncoding.EncodeToString(login)
		}
		hosts, err := templates.RegistryHosts(url, authorization)
		return []file{
			{"/etc/containerd/certs.d/" + at + "/hosts.toml", 0o600, hosts},
			{fmt.Sprintf("/etc/containerd/certs.d/%s:%d/hosts.toml", registryName, registryPort), 0o600, hosts},
		}, err
	}
	s.look = func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		if !c.hasKubeconfig() {
			return graph.State{}, nil
		}
		all, err := files(ctx)
		if err != nil || all == nil {
			return graph.State{Detail: "there is no registry"}, err
		}
		printed, err := look(ctx, client, checkFiles(all))
		return found(printed, "containerd knows it"), err
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		all, err := files(ctx)
		if err == nil && all == nil {
			err = errors.New("the registry's Secret is gone")
		}
		if err != nil {
			return err
		}
		return write(ctx, client, all)
	}
	return s
}
