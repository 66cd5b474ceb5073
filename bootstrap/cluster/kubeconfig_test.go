package cluster_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/internal/clustertest"
)

func TestRenameKeepsTheCertificatesUnderOneName(t *testing.T) {
	s := clustertest.New(t)
	text, err := cluster.Rename(s.Kubeconfig(), "demo", "https://172.24.4.2:6443")
	if err != nil {
		t.Fatal(err)
	}
	before, err := clientcmd.Load(s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	after, err := clientcmd.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	want := before.DeepCopy()
	want.Clusters["demo"], want.AuthInfos["demo"], want.Contexts["demo"] =
		want.Clusters["kubernetes"], want.AuthInfos["kubernetes-admin"], want.Contexts["kubernetes-admin@kubernetes"]
	delete(want.Clusters, "kubernetes")
	delete(want.AuthInfos, "kubernetes-admin")
	delete(want.Contexts, "kubernetes-admin@kubernetes")
	want.Clusters["demo"].Server = "https://172.24.4.2:6443"
	want.Contexts["demo"].Cluster, want.Contexts["demo"].AuthInfo = "demo", "demo"
	want.CurrentContext = "demo"
	if diff := cmp.Diff(want, after); diff != "" {
		t.Errorf("renamed (-want +got):\n%s", diff)
	}
	back, err := cluster.Rename(text, "demo", s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New(back, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Healthy(t.Context()); err != nil { // it still lets us in
		t.Error(err)
	}
	_, err = cluster.Rename(s.Kubeconfig(), "demo", "172.24.4.2:6443")
	wantError(t, err, "https://HOST:PORT")
	_, err = cluster.Rename(s.Kubeconfig(), "", s.URL)
	wantError(t, err, "no name")
}
