//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/bootstrap/cloud"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

const (
	registryAt  = "172.30.0.20:5000"
	registryDNS = "registry.kuryr-registry.svc:5000"
)

// through dials from the first master of a stack.
func through(t *testing.T, stack string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(_ context.Context, _, address string) (net.Conn, error) {
		here, there := net.Pipe()
		cmd := exec.CommandContext(t.Context(), kuryrctl(t), "--cloud", "lab", "ssh", stack, "master-0", "--", "socat - TCP:"+address)
		cmd.Stdin, cmd.Stdout = there, there
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		go func() {
			cmd.Wait() // what was wrong shows in what was said
			there.Close()
		}()
		return here, nil
	}
}

// push pushes the demo of the bundle to the registry under a name of its own.
func push(t *testing.T, stack string, api *operator, repository string) {
	t.Helper()
	b, err := bundle.Open(bundleOf(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r, err := b.Release("", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := r.Images(bundle.Demo).Open()
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	dir := t.TempDir()
	unpack := exec.Command("tar", "-x", "-C", dir)
	unpack.Stdin = archive
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}

	// An image of its own: a kubelet that has pulled one with a password asks for it again when the same image was preloaded under another name.
	config, err := img.ConfigFile()
	if err == nil {
		config.Config.Labels = map[string]string{"of": t.Name()}
		img, err = mutate.ConfigFile(img, config)
	}
	if err != nil {
		t.Fatal(err)
	}
	secret, err := api.Secret(t.Context(), "kuryr-registry", "registry")
	if err != nil || secret == nil {
		t.Fatalf("the registry's secret: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(api.Authority())
	transport := &http.Transport{DialContext: through(t, stack), TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	ref, err := name.ParseReference(registryAt + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	login := &authn.Basic{Username: string(secret["username"]), Password: string(secret["password"])}
	if err := remote.Write(ref, img, remote.WithTransport(transport), remote.WithContext(t.Context()), remote.WithAuth(login)); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Head(ref, remote.WithTransport(transport), remote.WithContext(t.Context())); err == nil {
		t.Error("the registry asks for no password")
	}
}

// helloRoute leads to the same Service as the Ingress beside it, under another name.
const helloRoute = `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: hello}, spec: {
parentRefs: [{name: router, namespace: kuryr-router}], hostnames: [route.example.org], rules: [{backendRefs: [{name: hello, port: 80}]}]}}`

// addonsLive proves the registry and the router: an image that is pushed from outside is pulled by a pod, under both names, and the pod is
// reached from outside through the router's floating IP, by an Ingress and by a route of the Gateway API.
func addonsLive(t *testing.T, stack string, api *operator) {
	t.Helper()
	push(t, stack, api, "hello:1")
	for kind, image := range map[string]string{"one": registryAt + "/hello:1", "two": registryDNS + "/hello:1"} {
		kubectl(t, stack, "run "+kind+" --image="+image+" --image-pull-policy=Always --port=8080 --labels=app=hello")
	}
	kubectl(t, stack, "wait --for=condition=Ready pod -l app=hello --timeout=3m")
	kubectl(t, stack, "expose pod one --port=80 --target-port=8080 --name=hello --selector=app=hello")
	kubectl(t, stack, "create ingress hello --rule='hello.example.org/*=hello:80'")
	kubectl(t, stack, "apply -f - <<'end'\n"+helloRoute+"\nend\n")
	address := strings.TrimSpace(kubectl(t, stack, "-n kuryr-router get service router -o 'jsonpath={.status.loadBalancer.ingress[0].ip}'"))
	gateway := kubectl(t, stack, `-n kuryr-router get gateway router -o 'jsonpath={.status.addresses[*].value} {.status.conditions[?(@.type=="Programmed")].status}'`)
	if gateway != address+" True" {
		t.Errorf("the Gateway has the address, and is programmed: %q, want those of %s", gateway, address)
	}
	lab, err := cloud.Default()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: lab.DialContext, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // an Ingress without a secret has a certificate that nobody knows
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	seen := map[string]bool{}
	err = wait.For(ctx, "both pods to answer at "+address, time.Second, func(ctx context.Context) (string, bool, error) {
		for _, as := range []string{"http://hello.example.org", "https://hello.example.org", "http://route.example.org"} {
			scheme, host, _ := strings.Cut(as, "://")
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+"/", nil)
			if err != nil {
				return "", false, err
			}
			req.Host = host
			resp, err := client.Do(req)
			if err != nil {
				return err.Error(), false, nil
			}
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				return resp.Status, false, nil
			}
			pod, said, _ := strings.Cut(string(text), ": ")
			if said != "HELLO, I AM ALIVE!!!\n" {
				t.Errorf("%s answers %q", as, text)
			}
			seen[as], seen[pod] = true, true
		}
		return "not all were seen", len(seen) == 5, nil
	})
	if err != nil {
		t.Errorf("%v; seen are %v", err, seen)
	}
	kubectl(t, stack, "delete ingress/hello httproute/hello service/hello pod/one pod/two --wait=false")
}
