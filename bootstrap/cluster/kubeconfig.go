package cluster

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// entry is one way into one cluster.
type entry struct {
	name    string // of the context
	cluster api.Cluster
	user    api.AuthInfo
}

// parse reads the current (or only) context of a kubeconfig that was made elsewhere. It is reduced to what kubeadm writes: where it
// says more, such as a command to be run here, it is refused.
func parse(kubeconfig []byte) (entry, error) {
	fail := func(format string, args ...any) (entry, error) {
		return entry{}, fmt.Errorf("reading a kubeconfig: "+format, args...)
	}
	c, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return fail("%w", err)
	}
	name := c.CurrentContext
	for only := range c.Contexts {
		if name == "" && len(c.Contexts) == 1 {
			name = only
		}
	}
	context := c.Contexts[name]
	if context == nil {
		return fail("it has no current context")
	}
	cluster, user := c.Clusters[context.Cluster], c.AuthInfos[context.AuthInfo]
	if cluster == nil || user == nil {
		return fail("context %s has no cluster or no user", name)
	}
	e := entry{
		name:    name,
		cluster: api.Cluster{Server: cluster.Server, CertificateAuthorityData: cluster.CertificateAuthorityData},
		user:    api.AuthInfo{ClientCertificateData: user.ClientCertificateData, ClientKeyData: user.ClientKeyData, Token: user.Token},
	}
	if err := checkServer(e.cluster.Server); err != nil {
		return fail("context %s: %w", name, err)
	}
	if len(e.cluster.CertificateAuthorityData) == 0 {
		return fail("context %s has no embedded CA certificate", name)
	}
	if len(e.user.ClientCertificateData) == 0 && e.user.Token == "" {
		return fail("context %s has neither an embedded client certificate nor a token", name)
	}
	cluster.Extensions, user.Extensions = nil, nil
	if !reflect.DeepEqual(*cluster, e.cluster) || !reflect.DeepEqual(*user, e.user) {
		return fail("context %s has more than a server, embedded certificates or a token; files, plug-ins, proxies, passwords "+
			"and unverified connections are not taken from another machine", name)
	}
	return e, nil
}

func checkServer(server string) error {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("server %q is not of the form https://HOST:PORT", server)
	}
	return nil
}

// Rename returns a kubeconfig with one cluster, user and context, all called name, whose API server is at the given URL: the admin
// kubeconfig of a master, fit for the user's own file. The certificates stay, so the API server's must be good for that URL.
func Rename(kubeconfig []byte, name, server string) ([]byte, error) {
	if name == "" {
		return nil, errors.New("renaming a kubeconfig: no name")
	}
	if err := checkServer(server); err != nil {
		return nil, fmt.Errorf("renaming a kubeconfig: %w", err)
	}
	e, err := parse(kubeconfig)
	if err != nil {
		return nil, err
	}
	e.name, e.cluster.Server = name, server
	c := api.NewConfig()
	e.into(c)
	c.CurrentContext = name
	return clientcmd.Write(*c)
}

// into sets the three entries. A namespace and whatever else the user gave the context stays.
func (e entry) into(c *api.Config) {
	c.Clusters[e.name], c.AuthInfos[e.name] = &e.cluster, &e.user
	context := c.Contexts[e.name]
	if context == nil {
		context = api.NewContext()
		c.Contexts[e.name] = context
	}
	context.Cluster, context.AuthInfo = e.name, e.name
}
