package openstack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func certError() error { return &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}} }

// newTLSKeystone is a cloud behind TLS, with the files that go with it: the CA is the server's own certificate, which serves as the client's
// too.
func newTLSKeystone(t *testing.T, clientAuth tls.ClientAuthType) (k *keystone, cert, key string) {
	t.Helper()
	k = &keystone{regions: []string{"RegionOne"}, interfaces: []string{"public"}}
	k.network = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"extensions": []}`) }
	k.Server = httptest.NewUnstartedServer(k)
	k.Config.ErrorLog = discardLog()
	k.TLS = &tls.Config{ClientAuth: clientAuth}
	k.StartTLS()
	t.Cleanup(k.Close)
	der, err := x509.MarshalPKCS8PrivateKey(k.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePEM(t, cert, "CERTIFICATE", k.Certificate().Raw)
	writePEM(t, key, "PRIVATE KEY", der)
	return k, cert, key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTLSTrustsWhatTheConfigurationSays(t *testing.T) {
	isolate(t)
	tests := []struct {
		name       string
		clientAuth tls.ClientAuthType
		more       string // of the cloud, with $CERT and $KEY
		want       string // of the error
	}{
		{"no CA named", tls.NoClientCert, "", "cacert in clouds.yaml or OS_CACERT"},
		{"the cloud's CA", tls.NoClientCert, "cacert: $CERT", ""},
		{"no verification", tls.NoClientCert, "verify: false", ""},
		{"no verification, which needs no CA file", tls.NoClientCert, "verify: false, cacert: /nowhere/ca.pem", ""},
		{"a CA file that is not there", tls.NoClientCert, "cacert: /nowhere/ca.pem", "reading cacert: open /nowhere/ca.pem"},
		{"a CA file with something else in it", tls.NoClientCert, "cacert: $KEY", "no certificate in PEM form"},
		{"a client certificate where one is asked for", tls.RequireAnyClientCert, "cacert: $CERT, cert: $CERT, key: $KEY", ""},
		{"no client certificate where one is asked for", tls.RequireAnyClientCert, "cacert: $CERT", "certificate required"},
		{"a key without its certificate", tls.NoClientCert, "key: $KEY", "a key for TLS but no cert"},
		{"a certificate whose key is not with it", tls.NoClientCert, "cert: $CERT", "reading the client certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, cert, key := newTLSKeystone(t, tt.clientAuth)
			more := strings.NewReplacer("$CERT", cert, "$KEY", key).Replace(tt.more)
			file := k.write(t, "clouds: {demo: {auth: {auth_url: $URL/v3, username: u, password: p, project_name: demo}, "+more+"}}")
			_, err := Connect(t.Context(), Options{File: file, Backoff: time.Microsecond})
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("want %q in: %v", tt.want, err)
			}
		})
	}
}

func TestChainsSayByWhatServersWereTrusted(t *testing.T) {
	isolate(t)
	k, cert, _ := newTLSKeystone(t, tls.NoClientCert)
	at := strings.TrimPrefix(k.URL, "https://")
	for more, verified := range map[string]bool{"cacert: " + cert: true, "verify: false": false} {
		file := k.write(t, "clouds: {demo: {auth: {auth_url: $URL/v3, username: u, password: p, project_name: demo}, "+more+"}}")
		want := Chain{Host: at, Verified: verified, Ends: k.Certificate().NotAfter, Ending: k.Certificate().Subject.String()}
		if all := mustConnect(t, Options{File: file}).Chains(); len(all) != 1 || all[0] != want {
			t.Errorf("%s: %+v, want %+v", more, all, want)
		}
	}
	plain := newKeystone(t)
	if all := mustConnect(t, Options{File: plain.write(t, simpleCloud)}).Chains(); len(all) != 0 {
		t.Errorf("without TLS: %+v", all)
	}
	_, err := Connect(t.Context(), Options{File: k.write(t, simpleCloud), Backoff: time.Microsecond})
	if !IsUnknownCA(err) || !strings.Contains(err.Error(), `it shows 1 certificate(s); the last is signed by "O=Acme Co"`) {
		t.Errorf("without a CA: %v", err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	isolate(t)
	k := &keystone{}
	k.Server = httptest.NewUnstartedServer(k)
	k.Config.ErrorLog = discardLog()
	k.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	k.StartTLS()
	defer k.Close()
	file := k.write(t, "clouds: {demo: {auth: {auth_url: $URL/v3, username: u, password: p, project_name: demo}, verify: false}}")
	if _, err := Connect(t.Context(), Options{File: file, Backoff: time.Microsecond}); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("got %v", err)
	}
}

func TestHTTPWhereTLSIsExpectedIsNamed(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	file := k.write(t, strings.ReplaceAll(simpleCloud, "$URL", strings.Replace(k.URL, "http:", "https:", 1)))
	_, err := Connect(t.Context(), Options{File: file, Backoff: time.Microsecond})
	if err == nil || !strings.Contains(err.Error(), "should auth_url begin with http://?") {
		t.Errorf("got %v", err)
	}
}

func TestDialIsTheWayToTheCloudAndNoProxyIs(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	var asked string
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		asked = addr
		return (&net.Dialer{}).DialContext(ctx, network, k.Listener.Addr().String())
	}
	file := k.write(t, strings.ReplaceAll(simpleCloud, "$URL", "http://192.0.2.1:5000"))
	mustConnect(t, Options{File: file, Dial: dial})
	if asked != "192.0.2.1:5000" {
		t.Errorf("dialled %q", asked)
	}
}

// TestProxiesOfTheEnvironmentAreUsed runs itself again, because net/http reads the variables once per process.
func TestProxiesOfTheEnvironmentAreUsed(t *testing.T) {
	if url := os.Getenv("OPENSTACK_TEST_CLOUD"); url != "" {
		isolate(t)
		k := &keystone{Server: &httptest.Server{URL: url}}
		if _, err := Connect(t.Context(), Options{File: k.write(t, simpleCloud), Backoff: time.Microsecond}); err != nil {
			t.Fatal(err)
		}
		_, err := Connect(t.Context(), Options{File: k.write(t, simpleCloud), Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Name: addr, IsNotFound: true}}
		}})
		if err == nil || !strings.Contains(err.Error(), "lookup cloud.example:80") {
			t.Errorf("Dial was asked for something else than the cloud: %v", err)
		}
		return
	}
	k := newKeystone(t) // answers a proxy's request like any other: the path is what counts
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxiesOfTheEnvironmentAreUsed$")
	cmd.Env = append(os.Environ(), "OPENSTACK_TEST_CLOUD=http://cloud.example", "HTTP_PROXY="+k.URL, "NO_PROXY=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k.lastBody(t)
}
