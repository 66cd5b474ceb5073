package stack_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/stack"
)

func TestPodsAreListedWithTheirPorts(t *testing.T) {
	t.Parallel()
	p := onNeutron(t)
	p.Set("port", p.subports["worker-0"][0].Port, "status", "DOWN")
	list := func(f stack.PodFilter) (lines []string) {
		t.Helper()
		all, err := open(t, p.Lab, "demo").Pods(t.Context(), f)
		must(t, err)
		for _, x := range all {
			lines = append(lines, fmt.Sprintf("%s %d %s/%s %s %s", x.Node, x.VLAN, x.Namespace, x.Pod, x.State, x.Status))
		}
		return lines
	}
	if all := list(stack.PodFilter{}); len(all) != 8 || all[0] != "worker-0 1 default/web-worker-0 used DOWN" || all[2] != "worker-0 2 / free ACTIVE" {
		t.Errorf("%q", all)
	}
	if all := list(stack.PodFilter{Node: "worker-1", Namespace: "default"}); len(all) != 1 || all[0] != "worker-1 1 default/web-worker-1 used ACTIVE" {
		t.Errorf("%q", all)
	}
	if _, err := open(t, p.Lab, "demo").Pods(t.Context(), stack.PodFilter{Node: "worker-9"}); err == nil || !strings.Contains(err.Error(), "there are: master-0") {
		t.Errorf("got %v", err)
	}
}
