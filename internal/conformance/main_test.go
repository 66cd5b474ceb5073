package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestTestsOfTheListAreLeftOut(t *testing.T) {
	every := []string{"[sig-network] a [Conformance]", "[sig-network] b [Conformance]", "[sig-network] c", "[sig-node] d [Conformance]"}
	focus := regexp.MustCompile(`\[sig-network\].*\[Conformance\]`)
	list := "# why\n\n" + every[1] + "\n"
	chosen, left, err := choose(every, focus, false, list)
	if err != nil || !slices.Equal(chosen, every[:1]) || !slices.Equal(left, every[1:2]) {
		t.Errorf("chosen are %q, left out are %q, %v", chosen, left, err)
	}
	if chosen, left, err = choose(every, focus, true, list); err != nil || !slices.Equal(chosen, every[:2]) || len(left) > 0 {
		t.Errorf("with -all: chosen are %q, left out are %q, %v", chosen, left, err)
	}
	if _, _, err = choose(every, focus, false, "[sig-network] renamed"); err == nil || !strings.Contains(err.Error(), `no test "[sig-network] renamed"`) {
		t.Errorf("a line that is no test: %v", err)
	}
	if _, _, err = choose(every, regexp.MustCompile("nothing"), false, list); err == nil || !strings.Contains(err.Error(), "nothing finds none of 4") {
		t.Errorf("a focus that finds nothing: %v", err)
	}
}

const summary = `
{"ContainerHierarchyTexts":null,"LeafNodeType":"SynchronizedBeforeSuite","LeafNodeText":"","State":"passed","RunTime":5}
{"ContainerHierarchyTexts":["[sig-network] A"],"LeafNodeType":"It","LeafNodeText":"works","State":"passed","RunTime":1500000000}
{"ContainerHierarchyTexts":["[sig-network] A","B"],"LeafNodeType":"It","LeafNodeText":"fails","State":"failed","RunTime":2,"Failure":{"Message":"the reason\nand more"}}
{"ContainerHierarchyTexts":["[sig-network] A"],"LeafNodeType":"It","LeafNodeText":"is not chosen","State":"skipped","RunTime":0,"Failure":{"Message":""}}
`

func TestTheVerdictIsOfEveryTestThatWasChosen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary.json")
	if err := os.WriteFile(path, []byte(summary), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := specs(path)
	if err != nil || len(all) != 3 {
		t.Fatalf("read are %+v, %v", all, err)
	}
	var out strings.Builder
	if err := verdict(&out, all, 2, errors.New("exit status 1")); err == nil || !strings.Contains(err.Error(), "1 of 2 passed") {
		t.Errorf("one failed: %v", err)
	}
	if want := "passed     1.5s [sig-network] A works\nfailed     0.0s [sig-network] A B fails\n                the reason\n"; out.String() != want {
		t.Errorf("printed is\n%s, want\n%s", out.String(), want)
	}
	passed := all[:1]
	if err := verdict(&out, passed, 1, nil); err != nil {
		t.Errorf("one of one passed: %v", err)
	}
	if err := verdict(&out, passed, 2, nil); err == nil || !strings.Contains(err.Error(), "1 of 2 passed") {
		t.Errorf("one was never run: %v", err)
	}
	if err := verdict(&out, passed, 1, errors.New("exit status 1")); err == nil {
		t.Error("the suite failed after its tests, and nothing is said")
	}
}

func TestImagesAreThoseOfTheSuite(t *testing.T) {
	list := "registry.k8s.io/e2e-test-images/agnhost:2\nregistry.k8s.io/e2e-test-images/busybox:1\nregistry.k8s.io/e2e-test-images/glibc-dns-testing:1\n" +
		"registry.k8s.io/e2e-test-images/nginx:1\nregistry.k8s.io/e2e-test-images/perl:5\ngcr.io/k8s-authenticated-test/agnhost:2.6\n"
	refs, err := wanted(list)
	if err != nil || len(refs) != 4 || slices.Contains(refs, "gcr.io/k8s-authenticated-test/agnhost:2.6") {
		t.Errorf("the images are %q, %v", refs, err)
	}
	if _, err := wanted(strings.Replace(list, "glibc-dns-testing", "renamed", 1)); err == nil {
		t.Error("an image that is no more is not missed")
	}
}

// The tests are those of the release that a bundle has.
func TestTheSuiteIsOfTheBundlesRelease(t *testing.T) {
	pinned := func(path string) string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		version := regexp.MustCompile(`k8s\.io/kubernetes (v\S+)`).FindSubmatch(text)
		if version == nil {
			t.Fatalf("%s does not require k8s.io/kubernetes", path)
		}
		return string(version[1])
	}
	if tests, bundle := pinned("kubernetes/go.mod"), pinned("../../bootstrap/bundle/kubernetes/go.mod"); tests != bundle {
		t.Errorf("the tests are of Kubernetes %s, the bundle is of %s", tests, bundle)
	}
}
