// Package dns takes the place of lego's package of that name, which knows two hundred DNS services by modules of theirs: they are most
// of Traefik's code, and some cannot be had from the Go module proxy. The one that stays is a standard: RFC 2136, dynamic updates.
package dns

import (
	"fmt"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/providers/dns/dnsupdate"
)

// NewDNSChallengeProviderByName is the provider of that name.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	switch name {
	case "dnsupdate", "rfc2136":
		return dnsupdate.NewDNSProvider()
	}
	return nil, fmt.Errorf("unknown DNS provider %q: this Traefik has dnsupdate (RFC 2136) alone", name)
}
