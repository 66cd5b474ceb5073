package stack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
)

// addonLimit is for one answer of the registry, the router and a name server.
const addonLimit = 5 * time.Second

// checkRegistry asks it as containerd does, but for the password: whoever has none is told so.
func checkRegistry(ctx context.Context, d *diagnosis) answer {
	if !d.config.Registry.Enabled {
		return skipped("the registry is not declared")
	}
	return d.ofAPI(ctx, func(ctx context.Context, api *cluster.Cluster, r *remarks) (string, error) {
		lacks, err := api.Unfinished(ctx, "kuryr-registry", "registry")
		if err != nil {
			return "", err
		}
		if lacks != "" {
			r.problem("registry", lacks, d.applyAgain("kuryr-registry"))
			return "", nil
		}
		host, err := d.stack.Host(ctx, d.view, d.view.Nodes[0].Name)
		if err != nil {
			return "", err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(api.Authority())
		transport := &http.Transport{DialContext: host.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
		url := bootstrap.RegistryURL(d.config.Networks.Service.ClusterIPs(), d.config.Registry.Insecure)
		status, _, err := get(ctx, &http.Client{Transport: transport, Timeout: addonLimit}, url+"/v2/")
		switch {
		case err != nil:
			r.problem("registry", err.Error(), "see check load-balancers; "+d.applyAgain("kuryr-registry"))
		case status != http.StatusOK && status != http.StatusUnauthorized:
			r.problem("registry", fmt.Sprintf("%s answers %d %s", url, status, http.StatusText(status)),
				"kubectl -n kuryr-registry logs deployment/registry")
		}
		return "it answers at " + url, nil
	})
}

// checkRouter takes any answer of it for one: which applications there are is not its business.
func checkRouter(ctx context.Context, d *diagnosis) answer {
	if !d.config.Router.Enabled {
		return skipped("the router is not declared")
	}
	return d.ofAPI(ctx, func(ctx context.Context, api *cluster.Cluster, r *remarks) (string, error) {
		lacks, err := api.Unfinished(ctx, "kuryr-router", "router")
		if err != nil {
			return "", err
		}
		if lacks != "" {
			r.problem("router", lacks, d.applyAgain("kuryr-router"))
			return "", nil
		}
		address := serviceAddress(d.stack.session.Inventory(), d.stack.session.Name("svc/"+routerService))
		if !address.IsValid() {
			r.problem("router", "no floating IP leads to its load balancer", "kubectl -n kuryr-router describe service router: its events say why")
			return "", nil
		}
		client := &http.Client{Transport: &http.Transport{DialContext: d.stack.dialer(), DisableKeepAlives: true}, Timeout: addonLimit}
		if _, _, err := get(ctx, client, "http://"+address.String()+"/"); err != nil {
			r.problem("router", err.Error(), "see check load-balancers; if its members are well, a firewall is between here and port 80 of "+address.String())
		}
		return d.judgeNames(ctx, r, address)
	})
}

// judgeNames asks for the address of an application that there is none of.
func (d *diagnosis) judgeNames(ctx context.Context, r *remarks, router netip.Addr) (string, error) {
	if a := d.stack.routerAddress(d.config); a.IsValid() {
		router = a // which is somebody else's, where one is declared
	}
	resolver, at, err := d.stack.resolver(d.config)
	if err != nil {
		return "", err
	}
	well := "it answers at " + router.String()
	if resolver == nil {
		return well + "; no place for names is declared", nil
	}
	ctx, cancel := context.WithTimeout(ctx, addonLimit)
	defer cancel()
	name := "any." + d.config.AppsDomain()
	found, err := resolver.LookupNetIP(ctx, "ip4", name+".")
	note := r.problem
	if resolver == net.DefaultResolver { // the world may know a zone that this machine does not
		note = r.warning
	}
	mend := "kuryrctl dns sync " + d.name
	var lookup *net.DNSError // which names this machine's resolver, whoever was asked
	switch {
	case errors.As(err, &lookup):
		note(name, "asking "+at+": "+lookup.Err, mend+"; if the server does not answer, see why")
	case err != nil:
		return "", err
	case !slices.Contains(found, router):
		note(name, fmt.Sprintf("%s says %v, and the router is at %s", at, found, router), mend)
	default:
		return well + ", where the names below " + d.config.AppsDomain() + " lead by " + at, nil
	}
	r.whose = You
	return "", nil
}

func (d *diagnosis) applyAgain(namespace string) string {
	return "kubectl -n " + namespace + " get pods,events says why; kuryrctl stack " + d.name + " applies it again"
}
