package stack_test

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/internal/picture"
	"github.com/kuryrctl/kuryrctl/stack"
)

var waterfall = flag.String("waterfall", "", "draw where the time of making 1+2 at 100ms goes into this `file`")

// asCommands is what stack and unstack do without flags.
var asCommands = stack.UpOptions{Parallel: 32}

// BenchmarkStack makes stacks on a cloud that answers after a while, finds them as declared, and removes them. A server of this cloud is ACTIVE when
// it was looked at twice, so that what is left is what kuryrctl and the requests take; divided by the time of one request it is
// the number of those that have to follow each other.
func BenchmarkStack(b *testing.B) {
	for _, size := range [][2]int{{1, 2}, {1, 10}, {3, 100}} {
		for _, latency := range []time.Duration{0, 100 * time.Millisecond} {
			name := fmt.Sprintf("%d+%d/%v", size[0], size[1], latency)
			c := servers()
			c.Masters.Count, c.Workers.Count = size[0], size[1]
			run := func(what string, prepare, do func(lab *labtest.Lab)) {
				b.Run(what+"/"+name, func(b *testing.B) {
					writes, reads := 0, 0
					for range b.N {
						b.StopTimer()
						lab := labtest.NewOf(b, []string{"demo"}, size[1], openstacktest.Latency(latency),
							openstacktest.Quota("compute", "instances", -1), openstacktest.Quota("compute", "cores", -1), openstacktest.Quota("compute", "ram", -1))
						prepare(lab)
						lab.ResetLog()
						b.StartTimer()
						do(lab)
						writes, reads = writes+len(lab.Writes()), reads+len(lab.Reads())
					}
					if latency > 0 {
						b.ReportMetric(float64(b.Elapsed())/float64(latency)/float64(b.N), "in-a-row/op")
					}
					b.ReportMetric(float64(writes)/float64(b.N), "writes/op")
					b.ReportMetric(float64(reads)/float64(b.N), "reads/op")
				})
			}
			nothing := func(*labtest.Lab) {}
			build := func(lab *labtest.Lab) {
				if _, err := open(b, lab, "demo").Up(b.Context(), c, asCommands); err != nil {
					b.Fatal(err)
				}
			}
			if *waterfall != "" && size[0]+size[1] == 3 && latency > 0 {
				draw(b, labtest.New(b, []string{"demo"}, openstacktest.Latency(latency)), c)
			}
			run("stack", nothing, build)
			run("again", build, build)
			run("unstack", build, func(lab *labtest.Lab) {
				s := open(b, lab, "demo")
				r, err := s.Removal(b.Context())
				if err == nil {
					err = s.Down(b.Context(), r, asCommands)
				}
				if err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

func draw(b *testing.B, lab *labtest.Lab, c stack.Config) {
	var mu sync.Mutex
	var events []graph.Event
	o := asCommands
	o.On = func(e graph.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}
	begin := time.Now()
	if _, err := open(b, lab, "demo").Up(b.Context(), c, o); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(*waterfall, []byte(picture.Waterfall("stack demo, each request 100 ms", begin, events)), 0o644); err != nil {
		b.Fatal(err)
	}
}
