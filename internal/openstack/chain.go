package openstack

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"
)

// Chain is what proved that a server of the cloud is the one that was meant.
type Chain struct {
	Host     string    // and port, as in the catalog
	Verified bool      // false where the configuration asks for no proof
	Ends     time.Time // when the first certificate of it does
	Ending   string    // the subject of that certificate
}

// Chains are those of the servers that were spoken to with TLS so far, by host.
func (c *Cloud) Chains() []Chain {
	c.transport.mu.Lock()
	defer c.transport.mu.Unlock()
	var all []Chain
	for _, x := range c.transport.chains {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b Chain) int { return cmp.Compare(a.Host, b.Host) })
	return all
}

// chainShown takes the chain by which a server was trusted; without a proof, what it showed.
func chainShown(host string, state *tls.ConnectionState) Chain {
	chain := state.PeerCertificates
	if len(state.VerifiedChains) > 0 {
		chain = state.VerifiedChains[0]
	}
	x := Chain{Host: host, Verified: len(state.VerifiedChains) > 0}
	if len(chain) > 0 {
		first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		x.Ends, x.Ending = first.NotAfter, first.Subject.String()
	}
	return x
}
