package stack_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/stack"
)

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
