package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The whole process, which reads nothing and asks nobody: what every ADD and DEL costs before it begins.
func BenchmarkStart(b *testing.B) {
	program := filepath.Join(b.TempDir(), "kuryr-cni")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	var all []time.Duration
	for b.Loop() {
		begin := time.Now()
		cmd := exec.Command(program)
		cmd.Env = []string{"CNI_COMMAND=VERSION"}
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		all = append(all, time.Since(begin))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
}
