package openstack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// wire stands where the network is: answer is called for each sending, counted from 1.
type wire struct {
	sent   atomic.Int32
	bodies []string
	mu     sync.Mutex
	answer func(n int, req *http.Request) (*http.Response, error)
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	n := int(w.sent.Add(1))
	if req.Body != nil {
		data, _ := io.ReadAll(req.Body)
		w.mu.Lock()
		w.bodies = append(w.bodies, string(data))
		w.mu.Unlock()
	}
	return w.answer(n, req)
}

// lose is a connection that breaks after the request was written.
func lose(req *http.Request) (*http.Response, error) {
	if trace := httptrace.ContextClientTrace(req.Context()); trace != nil {
		trace.WroteHeaders()
	}
	return nil, io.ErrUnexpectedEOF
}

func reply(code int, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(`{}`))}
}

// over makes a transport whose network is answer.
func over(o Options, answer func(n int, req *http.Request) (*http.Response, error)) (*transport, *wire) {
	t, w := newTransport(o, nil), &wire{answer: answer}
	t.next = w
	return t, w
}

func request(ctx context.Context, method, url, body string) *http.Request {
	var r io.Reader
	if body != "" {
		r = bytes.NewReader([]byte(body))
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		panic(err)
	}
	return req
}

const ports = "http://cloud/network/v2.0/ports"

var errRefused = &net.OpError{Op: "dial", Err: errors.New("connection refused")}

func TestWhatIsSentAgain(t *testing.T) {
	code := func(code int, header ...string) func(*http.Request) (*http.Response, error) {
		return func(*http.Request) (*http.Response, error) { return reply(code, header...), nil }
	}
	refused := func(*http.Request) (*http.Response, error) { return nil, errRefused }
	all := []string{"GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "login"}
	repeatable := []string{"GET", "HEAD", "PUT", "DELETE", "login"}
	tests := []struct {
		name  string
		fail  func(*http.Request) (*http.Response, error)
		again []string
		tries int
		away  int // the tries of a service that has answered before
	}{
		{"a lost reply", lose, repeatable, 5, 5},
		{"a connection that was refused", refused, all, 5, 15},
		{"500", code(500), repeatable, 5, 5},
		{"502", code(502), repeatable, 5, 15},
		{"503", code(503), repeatable, 5, 15},
		{"504", code(504), repeatable, 5, 5},
		{"503 with the time to come again", code(503, "Retry-After", "1"), all, 5, 5},
		{"429", code(429), all, 10, 10},
		{"429 with the time to come again", code(429, "Retry-After", "7"), all, 10, 10},
		{"429 that wants an hour", code(429, "Retry-After", "3600"), nil, 0, 0},
		{"400", code(400), nil, 0, 0},
		{"401", code(401), nil, 0, 0},
		{"404", code(404), nil, 0, 0},
		{"409", code(409), nil, 0, 0},
		{"501", code(501), nil, 0, 0},
		{"a certificate nobody trusts", func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "remote error", Err: certError()}
		}, nil, 0, 0},
		{"a name that does not exist", func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}
		}, nil, 0, 0},
		{"a connection that timed out", func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: context.DeadlineExceeded}
		}, nil, 0, 0},
		{"a web page", func(*http.Request) (*http.Response, error) {
			r := reply(200)
			r.Body = io.NopCloser(strings.NewReader("<html>hello</html>"))
			return r, nil
		}, nil, 0, 0},
	}
	for _, tt := range tests {
		for _, method := range all {
			t.Run(tt.name+" to "+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					url, verb, body := ports, method, `{"port": {}}`
					if method == "login" {
						url, verb = "http://cloud/identity/v3/auth/tokens", "POST"
					}
					if method == "GET" || method == "HEAD" || method == "DELETE" {
						body = ""
					}
					want, away := 1, 1
					if slices.Contains(tt.again, method) {
						want, away = tt.tries, tt.away
					}
					tr, w := over(Options{}, func(_ int, req *http.Request) (*http.Response, error) { return tt.fail(req) })
					_, _ = tr.RoundTrip(request(t.Context(), verb, url, body))
					if got := int(w.sent.Load()); got != want {
						t.Errorf("sent %d times, want %d", got, want)
					}
					for i, b := range w.bodies {
						if b != body {
							t.Errorf("sending %d had body %q", i+1, b)
						}
					}
					tr, w = over(Options{}, func(n int, req *http.Request) (*http.Response, error) {
						if n == 1 {
							return reply(404), nil
						}
						return tt.fail(req)
					})
					for range 2 {
						_, _ = tr.RoundTrip(request(t.Context(), verb, url, body))
					}
					if got := int(w.sent.Load()) - 1; got != away {
						t.Errorf("sent %d times to a service that has answered before, want %d", got, away)
					}
					if want == 1 {
						return
					}
					tr, _ = over(Options{}, func(n int, req *http.Request) (*http.Response, error) {
						if n < 3 {
							return tt.fail(req)
						}
						return reply(200), nil
					})
					if resp, err := tr.RoundTrip(request(t.Context(), verb, url, body)); err != nil || resp.StatusCode != 200 {
						t.Errorf("a cloud that mends itself was given up: %v, %v", resp, err)
					}
				})
			})
		}
	}
}

func TestAServiceThatComesBackMayErr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, w := over(Options{}, func(n int, _ *http.Request) (*http.Response, error) {
			switch {
			case n == 1 || n > 13:
				return reply(200), nil
			case n > 9:
				return reply(500), nil
			}
			return nil, errRefused
		})
		for range 2 {
			if resp, err := tr.RoundTrip(request(t.Context(), "GET", ports, "")); err != nil || resp.StatusCode != 200 {
				t.Errorf("after %d sendings: %v, %v", w.sent.Load(), resp, err)
			}
		}
	})
}

func TestWhoeverWaitsForAServiceIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		var back time.Time
		tr, _ := over(Options{Log: slog.New(slog.NewTextHandler(&said, nil))}, func(int, *http.Request) (*http.Response, error) {
			if time.Now().Before(back) {
				return nil, errRefused
			}
			return reply(200), nil
		})
		for outage := range 3 {
			if outage > 0 {
				back = time.Now().Add(20 * time.Second)
			}
			var waiting sync.WaitGroup
			for range 4 {
				waiting.Go(func() {
					if _, err := tr.RoundTrip(request(t.Context(), "POST", ports, `{}`)); err != nil {
						t.Errorf("after %d outages: %v", outage, err)
					}
				})
			}
			waiting.Wait()
			if got := strings.Count(said.String(), "level=WARN"); got != outage {
				t.Errorf("%d warnings after %d outages:\n%s", got, outage, said.String())
			}
		}
	})
}

func TestRetriesWaitAsTheCloudAsks(t *testing.T) {
	for _, tt := range []struct {
		name     string
		header   func() string
		min, max time.Duration
	}{
		{"in seconds", func() string { return "7" }, 7 * time.Second, 8 * time.Second},
		{"until a date", func() string { return time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat) }, 19 * time.Second, 21 * time.Second},
		{"until a date that has passed", func() string { return time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat) }, 0, time.Second},
		{"without saying how long", func() string { return "" }, time.Nanosecond, 250*time.Millisecond + 1},
		{"in words nobody knows", func() string { return "soon" }, time.Nanosecond, 250*time.Millisecond + 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, _ := over(Options{}, func(n int, _ *http.Request) (*http.Response, error) {
					if n == 1 {
						return reply(429, "Retry-After", tt.header()), nil
					}
					return reply(201), nil
				})
				begin := time.Now()
				resp, err := tr.RoundTrip(request(t.Context(), "POST", ports, `{}`))
				if err != nil || resp.StatusCode != 201 {
					t.Fatal(resp, err)
				}
				if took := time.Since(begin); took < tt.min || took > tt.max {
					t.Errorf("waited %s, want %s to %s", took, tt.min, tt.max)
				}
			})
		})
	}
}

func TestBackoffGrowsAndStaysBounded(t *testing.T) {
	tr := newTransport(Options{Backoff: time.Second}, nil)
	for try, bound := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 9: 30 * time.Second} {
		var most time.Duration
		for range 500 {
			most = max(most, tr.jitter(try))
		}
		if most > bound+1 || most < bound/2 {
			t.Errorf("the longest of 500 waits before try %d is %s, want just below %s", try+1, most, bound)
		}
	}
}

func TestAWaitForARetryEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, w := over(Options{}, func(int, *http.Request) (*http.Response, error) { return reply(429, "Retry-After", "60"), nil })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := tr.RoundTrip(request(ctx, "GET", ports, ""))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second || w.sent.Load() != 1 {
			t.Errorf("after %s and %d sendings: %v", time.Since(begin), w.sent.Load(), err)
		}
	})
}

func TestOneRefusalForTooManyRequestsStopsTheWholeService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		tr, _ := over(Options{}, func(n int, req *http.Request) (*http.Response, error) {
			if n == 1 {
				return reply(429, "Retry-After", "10"), nil
			}
			if strings.HasPrefix(req.URL.Path, "/network/") && time.Since(begin) < 10*time.Second {
				t.Errorf("%s was sent after %s", req.URL, time.Since(begin))
			}
			return reply(200), nil
		})
		var group sync.WaitGroup
		for i := range 4 {
			group.Go(func() {
				if err := sleep(t.Context(), time.Duration(i)*time.Second); err != nil {
					t.Error(err)
				}
				if resp, err := tr.RoundTrip(request(t.Context(), "GET", ports, "")); err != nil || resp.StatusCode != 200 {
					t.Error(resp, err)
				}
			})
		}
		group.Go(func() {
			_ = sleep(t.Context(), time.Second)
			if _, err := tr.RoundTrip(request(t.Context(), "GET", "http://cloud/compute/v2.1/servers", "")); err != nil || time.Since(begin) != time.Second {
				t.Errorf("another service waited %s: %v", time.Since(begin), err)
			}
		})
		group.Wait()
	})
}

func TestAServiceIsGivenSoManyRequestsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		tr, _ := over(Options{Parallel: 3}, func(_ int, req *http.Request) (*http.Response, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			return reply(200), sleep(req.Context(), time.Second)
		})
		begin := time.Now()
		var group sync.WaitGroup
		for range 9 {
			group.Go(func() { _, _ = tr.RoundTrip(request(t.Context(), "GET", ports, "")) })
		}
		group.Wait()
		if most.Load() != 3 || time.Since(begin) != 3*time.Second {
			t.Errorf("%d at once for %s, want 3 for 3s", most.Load(), time.Since(begin))
		}
	})
}

func TestWaitingToRetryTakesNobodysPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _ := over(Options{Parallel: 1, Backoff: time.Hour}, func(_ int, req *http.Request) (*http.Response, error) {
			if req.Method == "PUT" {
				return reply(500), nil
			}
			return reply(200), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { _, _ = tr.RoundTrip(request(ctx, "PUT", ports, `{}`)) })
		synctest.Wait() // it sleeps now
		begin := time.Now()
		if _, err := tr.RoundTrip(request(t.Context(), "GET", ports, "")); err != nil || time.Since(begin) != 0 {
			t.Errorf("the read took %s: %v", time.Since(begin), err)
		}
		cancel()
		group.Wait()
	})
}

func TestAReplyThatNeverEndsIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, w := over(Options{}, func(_ int, req *http.Request) (*http.Response, error) {
			resp := reply(200)
			resp.Body = io.NopCloser(stuck{req.Context()})
			return resp, nil
		})
		_, err := tr.RoundTrip(request(t.Context(), "POST", ports, `{}`))
		if err == nil || !strings.Contains(err.Error(), "did not end within 1m0s") || w.sent.Load() != 1 {
			t.Errorf("after %d sendings: %v", w.sent.Load(), err)
		}
	})
}

// stuck is a body that says nothing until its request ends.
type stuck struct{ ctx context.Context }

func (s stuck) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}
