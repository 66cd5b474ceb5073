// Package cluster is the operator's side of a Kubernetes cluster: it owns what kuryrctl asks of an API server (is it healthy, which
// nodes are there, a token to join with, taking a node out of service) and the entry of a cluster in the user's kubeconfig.
// client-go lives only here.
//
// It refuses a kubeconfig that names files, plug-ins, proxies or passwords, or turns verification off: the ones it is given come
// from another machine, where kubeadm wrote them with everything embedded. It does not know how a cluster is built, nor what runs
// on it.
//
// Start reading at [New], then [Cluster.Drain]; [Merge] for the user's file.
package cluster

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/version"
	apiversion "k8s.io/apimachinery/pkg/version"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// callTimeout bounds a single request whose context has no earlier end. The API server gives up after a minute itself.
const callTimeout = 30 * time.Second

// Cluster is a client of one cluster's API server. Its methods may be called from several goroutines.
type Cluster struct {
	transport *http.Transport
	http      *http.Client // over transport, with the user's credentials
	server    string       // URL without a slash at its end
	ca        []byte
	core      corev1client.CoreV1Interface
}

// New makes a client from an admin kubeconfig. Every connection is made by dial: through SSH to a master, or from inside a network
// namespace; nil dials as usual, through the proxy of the environment if there is one. Nothing is sent yet.
func New(kubeconfig []byte, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (*Cluster, error) {
	quiet()
	e, err := parse(kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg := &rest.Config{
		Host:            e.cluster.Server,
		BearerToken:     e.user.Token,
		UserAgent:       "kuryrctl",
		ContentConfig:   rest.ContentConfig{ContentType: "application/json"},
		TLSClientConfig: rest.TLSClientConfig{CAData: e.cluster.CertificateAuthorityData, CertData: e.user.ClientCertificateData, KeyData: e.user.ClientKeyData},
		QPS:             -1, // the API server's own fairness is the limit; we send little, and one after the other
		WarningHandler:  rest.NoWarnings{},
	}
	tls, err := rest.TLSConfigFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("reading the certificates of kubeconfig %s: %w", e.name, err)
	}
	// client-go's own transports stay in a process-wide cache together with their dialer; this one ends with Close.
	transport := &http.Transport{
		TLSClientConfig:     tls,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
		DialContext:         dial,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second}, // a master may go without a word
	}
	if dial == nil {
		transport.Proxy = http.ProxyFromEnvironment
		transport.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	authenticated, err := rest.HTTPWrappersForConfig(cfg, transport)
	if err != nil {
		return nil, fmt.Errorf("reading the user of kubeconfig %s: %w", e.name, err)
	}
	client := &http.Client{Transport: authenticated, Timeout: callTimeout}
	core, err := corev1client.NewForConfigAndClient(cfg, client)
	if err != nil {
		return nil, fmt.Errorf("reading the server of kubeconfig %s: %w", e.name, err)
	}
	return &Cluster{transport: transport, http: client, server: strings.TrimRight(e.cluster.Server, "/"), ca: e.cluster.CertificateAuthorityData, core: core}, nil
}

// Authority is the certificate of the cluster's own authority, in PEM: who may speak for its API server.
func (c *Cluster) Authority() []byte { return c.ca }

// quiet keeps client-go from writing to stderr on its own. klog is one for the process, so this is too; what matters of it is in
// the errors returned.
var quiet = sync.OnceFunc(func() { klog.SetSlogLogger(slog.New(slog.DiscardHandler)) })

// Close ends the connections that are idle, which are all when no call is under way. The client may still be used afterwards.
func (c *Cluster) Close() { c.transport.CloseIdleConnections() }

// Healthy asks the API server whether it is ready to serve. It asks once; an error of a server that answered names the checks that
// failed.
func (c *Cluster) Healthy(ctx context.Context) error {
	status, text, err := c.get(ctx, "/readyz?verbose")
	if err == nil && status == http.StatusOK {
		return nil
	}
	var failed []string
	for line := range strings.Lines(text) {
		if check, ok := strings.CutPrefix(line, "[-]"); ok {
			failed = append(failed, strings.TrimSuffix(strings.TrimSpace(check), ": reason withheld"))
		}
	}
	switch {
	case err != nil:
	case len(failed) > 0:
		err = errors.New(strings.Join(failed, ", "))
	default:
		err = unexpected(status)
	}
	return fmt.Errorf("checking whether the API server is ready: %w", err)
}

// Version is what the API server calls itself, such as v1.37.1.
func (c *Cluster) Version(ctx context.Context) (string, error) {
	status, text, err := c.get(ctx, "/version")
	if err == nil && status != http.StatusOK {
		err = unexpected(status)
	}
	var info apiversion.Info
	if err == nil {
		err = json.Unmarshal([]byte(text), &info)
	}
	if err == nil && info.GitVersion == "" {
		err = errors.New("the answer has no gitVersion; is this an API server?")
	}
	if err != nil {
		return "", fmt.Errorf("asking for the API server's version: %w", err)
	}
	return info.GitVersion, nil
}

// Raw is the API server's answer to a GET of a path, such as /api/v1/events, as it is. It is cut after 16 MiB.
func (c *Cluster) Raw(ctx context.Context, path string) ([]byte, error) {
	status, text, err := c.get(ctx, path)
	if err == nil && status != http.StatusOK {
		err = unexpected(status)
	}
	if err != nil {
		return []byte(text), fmt.Errorf("asking the API server for %s: %w", path, err)
	}
	return []byte(text), nil
}

// Certificate is the one that the API server shows. It is verified as always: that it does not fit is an error.
func (c *Cluster) Certificate(ctx context.Context) (*x509.Certificate, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+"/version", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking for the API server's certificate: %w", err)
	}
	defer resp.Body.Close()
	return resp.TLS.PeerCertificates[0], nil // there is one, or it would not be verified
}

// get asks for what is not an API object. client-go drops or cuts the text of an answer that is not a success.
func (c *Cluster) get(ctx context.Context, path string) (status int, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return resp.StatusCode, string(body), err
}

func unexpected(status int) error {
	return fmt.Errorf("it answers %d %s", status, http.StatusText(status))
}

// oldestKubelet is how many minor versions a kubelet may be older than the API server.
const oldestKubelet = 3

// SkewProblem says what Kubernetes' version skew policy has against a kubelet at one version and an API server at another, or "".
// A kubelet may be up to three minor versions older and never newer; patch versions do not matter.
func SkewProblem(apiserver, kubelet string) string {
	server, err := version.ParseGeneric(apiserver)
	if err != nil {
		return fmt.Sprintf("version %q of the API server cannot be read", apiserver)
	}
	node, err := version.ParseGeneric(kubelet)
	if err != nil {
		return fmt.Sprintf("version %q of the kubelet cannot be read", kubelet)
	}
	older := int(server.Minor()) - int(node.Minor())
	switch {
	case server.Major() != node.Major():
		return fmt.Sprintf("kubelet %s and API server %s are of different major versions", kubelet, apiserver)
	case older < 0:
		return fmt.Sprintf("kubelet %s is newer than API server %s: upgrade the masters first", kubelet, apiserver)
	case older > oldestKubelet:
		return fmt.Sprintf("kubelet %s is %d minor versions older than API server %s; %d are supported: upgrade the node",
			kubelet, older, apiserver, oldestKubelet)
	}
	return ""
}
