package templates

import (
	_ "embed" // for the template
	"errors"
	"fmt"
	"strings"
)

//go:embed files/cloudinit.yaml.tmpl
var cloudInit string

// CloudInitData is what a server is told at its birth. The user's key is not part of it: it comes from Nova's key pair.
type CloudInitData struct {
	Hostname string // one DNS label; Kubernetes takes it as the node's name
	FQDN     string // "" if there is no domain

	// The host key the server serves until it is given one that was never in user_data. The metadata service shows user_data
	// to everything on the server for as long as it lives, so nothing else in it may be secret.
	HostKeyPrivate string // OpenSSH PEM, ed25519
	HostKeyPublic  string // authorized_keys line
}

// CloudInit renders a server's user_data: cloud-config as in cloud-init's module reference (SSH, Set Hostname, Update Etc
// Hosts). Nova takes 64 KiB of it in base64; this stays below 4 KiB. Distributions differ in which of the two names becomes
// the hostname, and kubeadm wants to know, so that is fixed; without the name in /etc/hosts sudo waits for DNS.
func CloudInit(d CloudInitData) ([]byte, error) {
	switch {
	case !hostname(d.Hostname) || strings.Contains(d.Hostname, "."):
		return nil, fmt.Errorf("rendering cloud-config: hostname %q is not a DNS label", d.Hostname)
	case d.FQDN != "" && (!hostname(d.FQDN) || !strings.HasPrefix(d.FQDN, d.Hostname+".")):
		return nil, fmt.Errorf("rendering cloud-config: FQDN %q is not a name of host %s", d.FQDN, d.Hostname)
	case !strings.HasPrefix(d.HostKeyPrivate, "-----BEGIN OPENSSH PRIVATE KEY-----\n"):
		return nil, errors.New("rendering cloud-config: the private host key is not OpenSSH PEM")
	case !strings.HasPrefix(d.HostKeyPublic, "ssh-ed25519 "):
		return nil, errors.New("rendering cloud-config: the public host key is not an ed25519 authorized_keys line")
	}
	return render("cloudinit.yaml", cloudInit, d)
}

// hostname reports whether name is one as in RFC 1123, 2.1, in lower case: Kubernetes takes no other for a node.
func hostname(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') {
				return false
			}
		}
	}
	return true
}
