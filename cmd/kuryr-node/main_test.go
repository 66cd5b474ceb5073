package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerbsAndWhatIsNone(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"version"}, 0, version + "\n", ""},
		{nil, 2, "", "daemon       give the subports"},
		{[]string{"dance"}, 2, "", "usage: kuryr-node VERB"},
		{[]string{"daemon", "-h"}, 0, "", "/etc/kubernetes/kubelet.conf"},
		{[]string{"daemon", "-nodes", "x"}, 2, "", "not defined: -nodes"},
		{[]string{"daemon", "x"}, 2, "", `unexpected argument "x"`},
		{[]string{"daemon", "-kubeconfig", none, "-state", none}, 1, "", "kuryr-node daemon: reading the kubeconfig: "},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), c.args, &stdout, &stderr); code != c.code || stdout.String() != c.stdout || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("%q: %d, %q, %q", c.args, code, &stdout, &stderr)
		}
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("state was made before there was any need")
	}
}
