// Command conformance is behind `make conformance`: it runs Kubernetes' own end-to-end tests against a stack on the lab cloud. It owns the
// recipe of the tests and of the images that they run, both from the Go module proxy and from Debian, the way of these images onto
// workers, and the list of tests that ask for what kuryrctl does not have yet.
//
// It refuses to change a test, to try one twice, and to make or remove a stack.
//
// Start reading at run; build.go makes what is run.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.stack, "stack", "", "the `name` of the stack; without one the tests are listed, and nothing is run")
	flag.StringVar(&o.kuryrctl, "kuryrctl", "bin/kuryrctl", "the `binary`")
	flag.StringVar(&o.focus, "focus", `\[sig-network\].*\[Conformance\]`, "run the tests whose names this `regexp` is found in")
	flag.BoolVar(&o.all, "all", false, "also run the tests in missing.txt, which ask for what is not there yet")
	flag.StringVar(&o.report, "report", "bin/conformance", "the `directory` for what the tests say")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

type options struct {
	stack, kuryrctl, focus, report string
	all                            bool
}

// run builds what is not built, chooses tests, and runs them when there is a stack to run them on.
func run(ctx context.Context, out io.Writer, o options) error {
	focus, err := regexp.Compile(o.focus)
	if err != nil {
		return fmt.Errorf("reading -focus: %w", err)
	}
	s, err := built(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.report, 0o755); err != nil {
		return err
	}
	every, err := s.list(ctx, o.report)
	if err != nil {
		return err
	}
	chosen, missing, err := choose(every, focus, o.all, missingText)
	if err != nil {
		return err
	}
	for _, name := range missing {
		fmt.Fprintln(out, "not run  ", name)
	}
	if o.stack == "" {
		for _, name := range chosen {
			fmt.Fprintln(out, "to be run", name)
		}
		return nil
	}
	if err := s.takeImages(ctx, o); err != nil {
		return err
	}
	return s.test(ctx, out, o, chosen)
}

// missingText has a line for each test that asks for what is not there yet.
//
//go:embed missing.txt
var missingText string

// choose splits the tests that focus finds into those to run and those left out. A line of the list that is no test of this release is an
// error: a test that was renamed would be run, and one that is gone would be thought of as owed.
func choose(every []string, focus *regexp.Regexp, all bool, list string) (chosen, left []string, err error) {
	missing := map[string]bool{}
	for line := range strings.Lines(list) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if !slices.Contains(every, line) {
			return nil, nil, fmt.Errorf("reading missing.txt: there is no test %q", line)
		}
		missing[line] = true
	}
	for _, name := range every {
		switch {
		case !focus.MatchString(name):
		case missing[name] && !all:
			left = append(left, name)
		default:
			chosen = append(chosen, name)
		}
	}
	if len(chosen) == 0 {
		return nil, left, fmt.Errorf("choosing tests: %s finds none of %d, or only such as are in missing.txt (-all)", focus, len(every))
	}
	return chosen, left, nil
}

// spec is what a test has to say of itself, as far as it matters here.
type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	RunTime                 time.Duration
	Failure                 struct{ Message string }
}

func (s spec) name() string {
	return strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")
}

// specs reads the file that --spec-dump names.
func specs(path string) (all []spec, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading what became of the tests: %w", err)
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var s spec
		if err := d.Decode(&s); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading what became of the tests: %w", err)
		}
		if s.LeafNodeType == "It" {
			all = append(all, s)
		}
	}
}

// list asks the suite for the names of its tests.
func (s suite) list(ctx context.Context, report string) (names []string, err error) {
	summary, err := filepath.Abs(filepath.Join(report, "list.json"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, s.path("e2e.test"), "--ginkgo.dry-run", "--provider=skeleton", "--spec-dump="+summary)
	if talk, err := cmd.CombinedOutput(); err != nil {
		said, _, _ := strings.Cut(string(talk), "\n")
		return nil, fmt.Errorf("listing tests: %w: %s", err, said)
	}
	all, err := specs(summary)
	for _, t := range all {
		names = append(names, t.name())
	}
	slices.Sort(names) // the suite's order is chance
	return names, err
}

// kuryrctl runs the binary on the lab.
func (o options) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, o.kuryrctl, append([]string{"--cloud", "lab"}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// takeImages brings the images to the workers that do not have them.
func (s suite) takeImages(ctx context.Context, o options) error {
	text, err := o.command(ctx, "show", o.stack, "-o", "json").Output()
	if err != nil {
		return fmt.Errorf("asking for the workers of %s: %w", o.stack, err)
	}
	var stack struct {
		Nodes []struct{ Name, Role string }
	}
	if err := json.Unmarshal(text, &stack); err != nil {
		return fmt.Errorf("asking for the workers of %s: %w", o.stack, err)
	}
	// Pinned, for the kubelet may otherwise take images away that nothing runs at the moment, and nobody would bring them again.
	const label = "io.kuryrctl.conformance"
	for _, n := range stack.Nodes {
		if n.Role != "worker" {
			continue
		}
		ctr := func(line string) *exec.Cmd {
			return o.command(ctx, "ssh", o.stack, n.Name, "--", "sudo ctr -n k8s.io images "+line)
		}
		there, err := ctr(fmt.Sprintf(`ls -q 'labels."%s"==%s'`, label, s.key)).Output()
		if err != nil {
			return fmt.Errorf("looking for the tests' images on %s: %w", n.Name, err)
		}
		if len(there) > 0 {
			continue
		}
		fmt.Fprintf(os.Stderr, "conformance: images for %s ...\n", n.Name)
		images, err := os.Open(s.path("images.tar"))
		if err != nil {
			return err
		}
		load := ctr("import --label " + label + "=" + s.key + " --label io.cri-containerd.image=managed --label io.cri-containerd.pinned=pinned -")
		load.Stdin = images
		if err := errors.Join(load.Run(), images.Close()); err != nil {
			return fmt.Errorf("taking the tests' images to %s: %w", n.Name, err)
		}
	}
	return nil
}

// labNamespace is where the floating IP of the stack's API can be reached: docs/lab.md.
const labNamespace = "kuryrctl-lab"

// test runs tests one after the other and says what became of each.
func (s suite) test(ctx context.Context, out io.Writer, o options, names []string) error {
	dir, err := filepath.Abs(o.report)
	if err != nil {
		return err
	}
	config, err := o.command(ctx, "kubeconfig", o.stack).Output()
	if err != nil {
		return fmt.Errorf("asking for the kubeconfig of %s: %w", o.stack, err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, config, 0o600); err != nil {
		return err
	}
	defer os.Remove(kubeconfig) // an administrator's
	log, err := os.Create(filepath.Join(dir, "e2e.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	summary := filepath.Join(dir, "summary.json")
	if err := os.RemoveAll(summary); err != nil { // of a run before, which this one's end would be taken for
		return err
	}
	for i, name := range names {
		names[i] = regexp.QuoteMeta(name)
	}
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", labNamespace, s.path("e2e.test"),
		"--provider=skeleton", "--kubeconfig="+kubeconfig, "--kubectl-path="+s.path("kubectl"), "--report-dir="+dir, "--spec-dump="+summary,
		"--ginkgo.v", "--ginkgo.no-color", "--ginkgo.timeout=6h", "--ginkgo.focus=("+strings.Join(names, "|")+")$") // before a test's name Ginkgo puts the suite's
	cmd.Stdout, cmd.Stderr = log, log
	// Told to end, the suite removes its namespaces.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	fmt.Fprintf(os.Stderr, "conformance: %d tests; the log is %s\n", len(names), log.Name())
	ran := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	all, err := specs(summary)
	if err != nil {
		return errors.Join(ran, err)
	}
	return verdict(out, all, len(names), ran)
}

// verdict prints what became of each test. Fewer than were chosen is an error as well: a name that finds nothing has not passed.
func verdict(out io.Writer, all []spec, want int, ran error) error {
	passed, count := 0, 0
	for _, s := range all {
		if s.State == "skipped" && s.Failure.Message == "" {
			continue // not chosen; what skips itself says why
		}
		count++
		if s.State == "passed" {
			passed++
		}
		fmt.Fprintf(out, "%-7s %6.1fs %s\n", s.State, s.RunTime.Seconds(), s.name())
		if s.Failure.Message != "" {
			first, _, _ := strings.Cut(strings.TrimSpace(s.Failure.Message), "\n")
			fmt.Fprintf(out, "                %s\n", first)
		}
	}
	switch {
	case passed != want || count != want:
		return fmt.Errorf("running the tests: %d of %d passed", passed, want)
	case ran != nil:
		return fmt.Errorf("running the tests: all passed, and then: %w", ran)
	}
	fmt.Fprintf(os.Stderr, "conformance: %d of %d passed\n", passed, want)
	return nil
}
