package openstack

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
)

// explainLogin says what an error of the first request to Keystone means for the person who wrote the configuration.
func explainLogin(err error, s *settings) error {
	var cert *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &cert):
		return fmt.Errorf("the server's certificate is not trusted: %w%s: name the cloud's CA by cacert in clouds.yaml or OS_CACERT", err, chainOf(cert))
	case errors.As(err, &header):
		return fmt.Errorf("the server does not speak TLS: %w: should auth_url begin with http://?", err)
	}
	switch {
	case status(err) == 0:
		return fmt.Errorf("reaching Keystone: %w", err)
	case IsUnauthorized(err):
		return Wrap(err, "Keystone refused %s", who(s))
	case status(err) == http.StatusNotFound:
		return Wrap(err, "no Keystone v3 answers there: is auth_url right?")
	}
	return Wrap(err, "asking Keystone for a token as %s", who(s))
}

// who names the credentials without showing them.
func who(s *settings) string {
	first := func(keys ...string) string {
		for _, key := range keys {
			if s.auth[key] != "" {
				return s.auth[key]
			}
		}
		return "?"
	}
	switch s.kind() {
	case "v3applicationcredential":
		return fmt.Sprintf("application credential %q", first("application_credential_name", "application_credential_id"))
	case "token", "v3token":
		return "the token"
	}
	return fmt.Sprintf("user %q for project %q with this password", first("username", "user_id"), first("project_name", "project_id"))
}

// chainOf says who signed what the server showed, where the chain ends short of a CA that is trusted.
func chainOf(e *tls.CertificateVerificationError) string {
	var unknown x509.UnknownAuthorityError
	if len(e.UnverifiedCertificates) == 0 || !errors.As(e.Err, &unknown) {
		return ""
	}
	last := e.UnverifiedCertificates[len(e.UnverifiedCertificates)-1]
	return fmt.Sprintf(" (it shows %d certificate(s); the last is signed by %q, which is not known here)", len(e.UnverifiedCertificates), last.Issuer)
}
