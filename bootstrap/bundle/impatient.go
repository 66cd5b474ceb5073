package bundle

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// errStalled ends a request that brings nothing any more.
var errStalled = errors.New("nothing came any more")

// impatient gives a request up that has brought nothing for a while: a total time would be too short for a slow line, or too long.
type impatient struct {
	base  http.RoundTripper
	stall time.Duration
}

func (i impatient) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(i.stall, func() { cancel(errStalled) })
	resp, err := i.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		timer.Stop()
		cancel(nil)
		return nil, stalled(ctx, err)
	}
	resp.Body = &impatientBody{ReadCloser: resp.Body,
		again: func() { timer.Reset(i.stall) },
		why:   func(err error) error { return stalled(ctx, err) },
		stop:  func() { timer.Stop(); cancel(nil) },
	}
	return resp, nil
}

type impatientBody struct {
	io.ReadCloser
	again, stop func()
	why         func(error) error
}

func (b *impatientBody) Read(p []byte) (int, error) {
	b.again()
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.why(err)
	}
	return n, err
}

func (b *impatientBody) Close() error {
	b.stop()
	return b.ReadCloser.Close()
}

func stalled(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}
