package sshtest

import (
	"fmt"
	"strconv"
	"strings"
)

// OS is the system a host with a shell has.
type OS string

// The systems that nodes may have.
const (
	Debian12   OS = "debian-12"
	Debian13   OS = "debian-13"
	Ubuntu2204 OS = "ubuntu-22.04"
	Ubuntu2404 OS = "ubuntu-24.04"
	Rocky9     OS = "rocky-9"
	Rocky10    OS = "rocky-10"
	CentOS9    OS = "centos-9"
	CentOS10   OS = "centos-10"
)

// AllOS lists the systems.
func AllOS() []OS {
	return []OS{Debian12, Debian13, Ubuntu2204, Ubuntu2404, Rocky9, Rocky10, CentOS9, CentOS10}
}

func (o OS) debian() bool {
	return strings.HasPrefix(string(o), "debian") || strings.HasPrefix(string(o), "ubuntu")
}

// release is the system's os-release, which tells systems apart; empty if there is no such system.
func (o OS) release() string {
	id, version, _ := strings.Cut(string(o), "-")
	name, like, more := "", "", "PLATFORM_ID=\"platform:el"+version+"\"\n"
	switch o {
	case Debian12, Debian13:
		name, more = "Debian GNU/Linux", "VERSION_CODENAME="+map[OS]string{Debian12: "bookworm", Debian13: "trixie"}[o]+"\n"
	case Ubuntu2204, Ubuntu2404:
		name, like, more = "Ubuntu", "debian", "VERSION_CODENAME="+map[OS]string{Ubuntu2204: "jammy", Ubuntu2404: "noble"}[o]+"\n"
	case Rocky9, Rocky10:
		name, like, version = "Rocky Linux", "rhel centos fedora", map[OS]string{Rocky9: "9.6", Rocky10: "10.0"}[o]
	case CentOS9, CentOS10:
		name, like = "CentOS Stream", "rhel fedora"
	default:
		return ""
	}
	quote := strconv.Quote
	if o.debian() {
		quote = func(s string) string { return s } // as they write it, and scripts may search for it
	}
	if like != "" {
		more += "ID_LIKE=" + quote(like) + "\n"
	}
	return fmt.Sprintf("PRETTY_NAME=\"%s %s\"\nNAME=%q\nID=%s\nVERSION_ID=%q\n%s", name, version, name, quote(id), version, more)
}

// sudoPath is where sudo looks for commands: on the EL 9 family not in /usr/local.
func (o OS) sudoPath() string {
	if o == Rocky9 || o == CentOS9 {
		return "/sbin:/bin:/usr/sbin:/usr/bin"
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}
