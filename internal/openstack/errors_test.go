package openstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
)

func refusal(code int, body string) error {
	return gophercloud.ErrUnexpectedResponseCode{
		Method: "POST", URL: "http://cloud/x", Expected: []int{201}, Actual: code, Body: []byte(body),
		ResponseHeader: http.Header{"X-Openstack-Request-Id": {"req-7"}},
	}
}

// The bodies are those of the services of 2025.1.
func TestTheCloudsOwnWordsAndWhatTheyMean(t *testing.T) {
	tests := []struct {
		name   string
		code   int
		body   string
		reason string
		is     string // the predicates that hold
	}{
		{"Neutron's quota", 409, `{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['port'].", "detail": ""}}`,
			"Quota exceeded for resources: ['port'].", "quota"},
		{"Nova's quota", 403, `{"forbidden": {"code": 403, "message": "Quota exceeded for cores: Requested 4, but already used 18 of 20 cores"}}`,
			"Quota exceeded for cores: Requested 4, but already used 18 of 20 cores", "quota"},
		{"Nova's ports", 403, `{"forbidden": {"code": 403, "message": "Maximum number of ports exceeded"}}`, "Maximum number of ports exceeded", "quota"},
		{"Octavia's quota", 403, `{"faultcode": "Client", "faultstring": "Quota has been met for resources: Load Balancer", "debuginfo": null}`,
			"Quota has been met for resources: Load Balancer", "quota"},
		{"a port in a trunk", 409, `{"NeutronError": {"type": "PortInUseAsSubPort", "message": "Port a is in use by another trunk.", "detail": ""}}`,
			"Port a is in use by another trunk.", "conflict"},
		{"an address that is taken", 409, `{"NeutronError": {"type": "IpAddressInUse", "message": "Unable to complete operation for network n. The IP address 10.0.0.5 is in use.", "detail": ""}}`,
			"Unable to complete operation for network n. The IP address 10.0.0.5 is in use.", "conflict"},
		{"a revision that has passed", 412, `{"NeutronError": {"type": "RevisionNumberConstraintFailed", "message": "Constrained to 3, but current revision is 4", "detail": ""}}`,
			"Constrained to 3, but current revision is 4", ""},
		{"a load balancer that is being deleted", 409, `{"faultcode": "Client", "faultstring": "Invalid state PENDING_UPDATE of loadbalancer resource 1", "debuginfo": null}`,
			"Invalid state PENDING_UPDATE of loadbalancer resource 1", "conflict immutable"},
		{"a load balancer that is being changed", 409, `{"faultcode": "Client", "faultstring": "Load Balancer 1 is immutable and cannot be updated.", "debuginfo": null}`,
			"Load Balancer 1 is immutable and cannot be updated.", "conflict immutable"},
		{"a provider without trees", 501, `{"faultcode": "Server", "faultstring": "Provider 'ovn' does not support a requested option: no", "debuginfo": null}`,
			"Provider 'ovn' does not support a requested option: no", "tree broken"},
		{"an API without trees", 400, `{"faultcode": "Client", "faultstring": "Unknown attribute:\nArgument: \"pools\"", "debuginfo": null}`,
			`Unknown attribute: Argument: "pools"`, "tree"},
		{"policy", 403, `{"NeutronError": {"type": "PolicyNotAuthorized", "message": "rule:create_x is disallowed by policy", "detail": ""}}`,
			"rule:create_x is disallowed by policy", "forbidden"},
		{"a server that is gone", 404, `{"itemNotFound": {"code": 404, "message": "Instance a could not be found."}}`, "Instance a could not be found.", "notfound"},
		{"Keystone", 401, `{"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}`,
			"The request you have made requires authentication.", "unauthorized"},
		{"an unknown path", 404, `{"message": "The resource could not be found.<br /><br />\n\n\n", "code": "404 Not Found", "title": "Not Found"}`,
			"The resource could not be found.", "notfound"},
		{"Placement", 409, `{"errors": [{"status": 409, "title": "Conflict", "detail": "generation conflict"}]}`, "generation conflict", "conflict"},
		{"Glance's page", 404, "<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  <h1>404 Not Found</h1>\n  No image found with ID x<br /><br />\n </body>\n</html>",
			"404 Not Found No image found with ID x", "notfound"},
		{"a proxy", 502, "<!DOCTYPE html><html><head><title>502 Proxy Error</title><style>p{}</style></head><body><h1>Proxy &amp; co</h1></body></html>", "Proxy & co", "ambiguous broken"},
		{"a page with a title only", 504, "<html><head><title>Gateway Timeout</title></head></html>", "Gateway Timeout", "ambiguous broken"},
		{"plain text", 500, "Internal\nServer Error\n", "Internal Server Error", "ambiguous broken"},
		{"nothing", 503, "", "service unavailable", "ambiguous broken"},
		{"a crash of Nova", 500, `{"computeFault": {"code": 500, "message": "Unexpected API Error. <class 'X'>"}}`, "Unexpected API Error. <class 'X'>", "ambiguous broken"},
		{"JSON that says nothing", 400, `{"a": 1, "b": []}`, "bad request", ""},
		{"too many requests", 429, ``, "too many requests", ""},
	}
	predicates := map[string]func(error) bool{
		"quota": IsQuota, "conflict": IsConflict, "immutable": IsImmutable, "tree": RefusesTree, "forbidden": IsForbidden,
		"notfound": IsNotFound, "unauthorized": IsUnauthorized, "ambiguous": IsAmbiguous, "broken": IsBroken, "noservice": IsNoService, "notconfigured": IsNotConfigured,
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := refusal(tt.code, tt.body)
			if got := Reason(err); got != tt.reason {
				t.Errorf("reason %q, want %q", got, tt.reason)
			}
			wrapped := fmt.Errorf("building node 1: %w", Wrap(err, "creating port %s", "demo/a"))
			if want := fmt.Sprintf("building node 1: creating port demo/a: %s (%d, req-7)", tt.reason, tt.code); wrapped.Error() != want {
				t.Errorf("error %q, want %q", wrapped, want)
			}
			for name, holds := range predicates {
				if want := strings.Contains(" "+tt.is+" ", " "+name+" "); holds(err) != want || holds(wrapped) != want {
					t.Errorf("%s is %v, wrapped %v, want %v", name, holds(err), holds(wrapped), want)
				}
			}
		})
	}
}

func TestWrapKeepsEachLayerOnce(t *testing.T) {
	refused := refusal(409, `{"NeutronError": {"type": "NetworkInUse", "message": "Network is in use.", "detail": ""}}`)
	inner := Wrap(refused, "deleting network %s", "a")
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"around an error that was wrapped", Wrap(inner, "removing stack %s", "demo"), "removing stack demo: deleting network a: Network is in use. (409, req-7)"},
		{"around another layer", Wrap(fmt.Errorf("page 2: %w", refused), "listing"), "listing: page 2: Network is in use. (409, req-7)"},
		{"after logging in again", Wrap(&gophercloud.ErrErrorAfterReauthentication{ErrOriginal: refused}, "deleting"), "deleting: Network is in use. (409, req-7)"},
		{"around something else", Wrap(io.ErrUnexpectedEOF, "reading %d", 1), "reading 1: unexpected EOF"},
	}
	for _, tt := range tests {
		if tt.err.Error() != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, tt.err, tt.want)
		}
	}
	if NeutronType(inner) != "NetworkInUse" || RequestID(inner) != "req-7" || !errors.Is(tests[3].err, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
	if Wrap(nil, "creating") != nil || Reason(nil) != "" || RequestID(nil) != "" || IsAmbiguous(nil) || IsNotFound(nil) {
		t.Error("nil is an error")
	}
	if long := Reason(refusal(400, strings.Repeat("é", 1000))); len(long) > maxReason+3 || strings.ContainsRune(long, '\uFFFD') {
		t.Errorf("%d bytes: %q", len(long), long)
	}
	if !IsNotFound(gophercloud.ErrResourceNotFound{}) || !IsNotFound(&gophercloud.ErrResourceNotFound{}) {
		t.Error("gophercloud's own not-found is not recognized in both its forms")
	}
}

// TestAmbiguityIsToldByARealConnection lets a server break off at different places.
func TestAmbiguityIsToldByARealConnection(t *testing.T) {
	cut := func(w http.ResponseWriter) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
	}
	tests := []struct {
		name, method string
		answer       func(n int32, w http.ResponseWriter)
		ambiguous    bool
		sent         int32
	}{
		{"a POST whose reply is lost", "POST", func(_ int32, w http.ResponseWriter) { cut(w) }, true, 1},
		{"a POST whose reply breaks off", "POST", func(_ int32, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(201)
			fmt.Fprint(w, `{"port":`)
		}, true, 1},
		{"a read whose reply is lost", "GET", func(_ int32, w http.ResponseWriter) { cut(w) }, false, 5},
		{"a POST that met an outage", "POST", func(_ int32, w http.ResponseWriter) { w.WriteHeader(504) }, true, 1},
		{"a POST that was put off too often", "POST", func(_ int32, w http.ResponseWriter) { w.WriteHeader(429) }, false, 10},
		{"a POST that was refused", "POST", func(_ int32, w http.ResponseWriter) { w.WriteHeader(409) }, false, 1},
		{"a POST the service cannot do", "POST", func(_ int32, w http.ResponseWriter) { w.WriteHeader(501) }, false, 1},
		{"a PUT refused at its second sending", "PUT", func(n int32, w http.ResponseWriter) {
			if n == 1 {
				cut(w)
				return
			}
			w.WriteHeader(409)
		}, true, 2},
		{"a PUT refused at its first", "PUT", func(_ int32, w http.ResponseWriter) { w.WriteHeader(409) }, false, 1},
		{"a PUT refused after it was put off", "PUT", func(n int32, w http.ResponseWriter) {
			if n == 1 {
				w.WriteHeader(429)
				return
			}
			w.WriteHeader(409)
		}, false, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var n atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				tt.answer(n.Add(1), w)
			}))
			defer server.Close()
			client := gophercloud.ProviderClient{HTTPClient: http.Client{Transport: newTransport(Options{Backoff: time.Microsecond}, nil)}}
			var body any
			opts := &gophercloud.RequestOpts{JSONResponse: &body}
			if tt.method != "GET" {
				opts.JSONBody = map[string]any{"port": map[string]any{}}
			}
			_, err := client.Request(t.Context(), tt.method, server.URL+"/v2.0/ports", opts)
			if err == nil || IsAmbiguous(err) != tt.ambiguous || IsAmbiguous(Wrap(err, "creating")) != tt.ambiguous || n.Load() != tt.sent {
				t.Errorf("ambiguous %v, want %v; sent %d times, want %d: %v", IsAmbiguous(err), tt.ambiguous, n.Load(), tt.sent, err)
			}
		})
	}
	t.Run("a POST given up while it was served", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			cancel()
			<-r.Context().Done()
		}))
		defer server.Close()
		client := http.Client{Transport: newTransport(Options{}, nil)}
		_, err := client.Do(request(ctx, "POST", server.URL+"/v2.0/ports", "{}"))
		if !errors.Is(err, context.Canceled) || !IsAmbiguous(err) || IsBroken(err) {
			t.Errorf("ambiguous %v, broken %v: %v", IsAmbiguous(err), IsBroken(err), err)
		}
	})
	t.Run("a POST that never left", func(t *testing.T) {
		client := http.Client{Transport: newTransport(Options{Backoff: time.Microsecond}, nil)}
		_, err := client.Post("http://127.0.0.1:1/v2.0/ports", "application/json", strings.NewReader("{}"))
		if err == nil || IsAmbiguous(err) || !IsBroken(err) {
			t.Errorf("ambiguous %v, broken %v: %v", IsAmbiguous(err), IsBroken(err), err)
		}
	})
}

// TestConnectionsThatDieBetweenRequestsAreNoticedByNobody: uWSGI without keep-alive closes after each reply and does not say so.
func TestConnectionsThatDieBetweenRequestsAreNoticedByNobody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(buf, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		buf.Flush()
		conn.Close()
	}))
	defer server.Close()
	client := http.Client{Transport: newTransport(Options{Backoff: time.Microsecond}, nil)}
	for range 50 {
		resp, err := client.Get(server.URL + "/v2.0/ports")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
}

func TestRedirectsAreFollowedForReadsOfTheSameHostOnly(t *testing.T) {
	var seen atomic.Int32
	stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	defer stranger.Close()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/near":
			http.Redirect(w, r, "/there", http.StatusMovedPermanently)
		case "/far":
			http.Redirect(w, r, strings.Replace(stranger.URL, "127.0.0.1", "localhost", 1), http.StatusMovedPermanently)
		default:
			fmt.Fprint(w, "{}")
		}
	}))
	server.Start()
	defer server.Close()
	client := gophercloud.ProviderClient{TokenID: "canary", HTTPClient: http.Client{Transport: newTransport(Options{}, nil), CheckRedirect: checkRedirect}}
	if _, err := client.Request(t.Context(), "GET", server.URL+"/near", &gophercloud.RequestOpts{}); err != nil {
		t.Error(err)
	}
	if _, err := client.Request(t.Context(), "POST", server.URL+"/near", &gophercloud.RequestOpts{JSONBody: 1}); err == nil || !strings.Contains(Reason(err), "redirects to /there") {
		t.Errorf("a POST went on: %v", err)
	}
	if _, err := client.Request(t.Context(), "GET", server.URL+"/far", &gophercloud.RequestOpts{}); err == nil || seen.Load() != 0 {
		t.Errorf("the token was carried to another host: %v", err)
	}
}
