package wait_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

func TestForLooksUntilDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, looks := time.Now(), 0
		err := wait.For(t.Context(), "the kettle", 3*time.Second, func(context.Context) (string, bool, error) {
			looks++
			return "cold", looks == 3, nil
		})
		if err != nil || looks != 3 || time.Since(begin) != 6*time.Second {
			t.Fatalf("err %v, %d looks in %v; want 3 looks in 6s", err, looks, time.Since(begin))
		}
	})
}

func TestForSaysWhatItSawWhenTheDeadlinePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		err := wait.For(ctx, "server demo/worker-0 to become ACTIVE", time.Second, func(context.Context) (string, bool, error) {
			return "BUILD", false, nil
		})
		want := "waiting for server demo/worker-0 to become ACTIVE: still BUILD after 10m0s: context deadline exceeded"
		if err == nil || err.Error() != want {
			t.Fatalf("got %v, want %s", err, want)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("the cause is lost")
		}
	})
}

func TestForEndsAtOnceOnATerminalError(t *testing.T) {
	boom := errors.New("ERROR: no valid host")
	err := wait.For(t.Context(), "x", time.Hour, func(context.Context) (string, bool, error) { return "", false, boom })
	if !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
}

func TestStopEndsAWaitButNotACallInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		ctx := wait.WithStop(t.Context(), stop)
		if wait.Stopping(ctx) {
			t.Fatal("stopping before anybody asked")
		}
		callFinished := false
		err := wait.For(ctx, "x", time.Second, func(ctx context.Context) (string, bool, error) {
			close(stop)
			time.Sleep(time.Minute) // virtual: a slow call
			callFinished = ctx.Err() == nil
			return "PENDING_CREATE", false, nil
		})
		if !errors.Is(err, wait.ErrStopping) || !callFinished || !wait.Stopping(ctx) {
			t.Fatalf("err %v, call finished %v", err, callFinished)
		}
		if !strings.Contains(err.Error(), "PENDING_CREATE") {
			t.Fatalf("the error does not say what was seen: %v", err)
		}
	})
}

func TestASleeperLeavesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := make(chan struct{}, 1)
		ready := make(chan struct{})
		errs := make(chan error, 2)
		go func() {
			errs <- wait.In(t.Context(), &wait.Place{Slots: slots}, func(ctx context.Context) error {
				return wait.For(ctx, "the other one", time.Second, func(context.Context) (string, bool, error) {
					select {
					case <-ready:
						return "", true, nil
					default:
						return "", false, nil
					}
				})
			})
		}()
		synctest.Wait()
		go func() { // could never run if the sleeper kept the only slot
			errs <- wait.In(t.Context(), &wait.Place{Slots: slots}, func(context.Context) error { close(ready); return nil })
		}()
		for range 2 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if len(slots) != 0 {
			t.Fatalf("%d slots still taken", len(slots))
		}
	})
}

func TestALookThatIsCutOffDoesNotHideWhatWasSeenBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		looks := 0
		err := wait.For(ctx, "x", time.Minute, func(ctx context.Context) (string, bool, error) {
			if looks++; looks == 1 {
				return "BUILD", false, nil
			}
			<-ctx.Done()
			return "", false, ctx.Err()
		})
		if err == nil || !strings.Contains(err.Error(), "still BUILD") {
			t.Fatalf("got %v", err)
		}
	})
}
