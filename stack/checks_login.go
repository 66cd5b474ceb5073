package stack

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

func checkDeclaration(_ context.Context, d *diagnosis) answer {
	if err := d.config.Validate(); err != nil {
		return failed(err, "correct the lab file or the flags")
	}
	return good("masters: %d, workers: %d", d.config.Masters.Count, d.config.Workers.Count)
}

func checkCloud(ctx context.Context, d *diagnosis) answer {
	cloud, err := d.connect(ctx)
	if err != nil {
		do := "correct the credentials in clouds.yaml or OS_*"
		switch {
		case openstack.IsNotConfigured(err):
			do = "write a clouds.yaml, source an openrc file, or run `kuryrctl cloud up` for one on this machine"
		case openstack.IsUnknownCA(err):
			return failed(err, "name the cloud's CA by cacert in clouds.yaml or OS_CACERT; where one is named, "+
				"ask the operator for the certificates in between").of(You)
		case openstack.IsBroken(err):
			do = "see whether auth_url is right and this machine reaches it; if both are so, ask the operator of the cloud"
		}
		return failed(err, do)
	}
	name := d.name
	if name == "" {
		name = "doctor"
	}
	if d.stack, err = Open(cloud, name, d.options.Options); err != nil {
		return failed(err, "")
	}
	if _, err := d.stack.discover(ctx, d.config); err != nil {
		return failed(err, d.mayRead(err))
	}
	d.lab = d.stack.Design(d.config)
	d.view = d.stack.view()
	return good("%s as user %s in project %s (%s), region %s, roles %s", cloud.Name, cloud.UserName(), cloud.ProjectName(), cloud.ProjectID(),
		orNone(cloud.Region(), "none"), strings.Join(cloud.Roles(), ", "))
}

func orNone(text, none string) string {
	if text == "" {
		return none
	}
	return text
}

// mayRead says what to do about a list that the cloud refused or did not give.
func (d *diagnosis) mayRead(err error) string {
	if openstack.IsForbidden(err) {
		return "a role is missing: as administrator, openstack role add --user " + d.cloud().UserID() + " --project " + d.cloud().ProjectID() +
			" member, and load-balancer_member where Octavia refuses"
	}
	return "ask the operator of the cloud"
}

func checkSecrets(_ context.Context, d *diagnosis) answer {
	var r remarks
	count := 0
	for _, path := range d.cloud().SecretFiles() {
		if info, err := os.Stat(path); err == nil {
			count++
			if others := info.Mode().Perm() & 0o077; others != 0 {
				r.warning(path, fmt.Sprintf("its mode is %04o: others on this machine can read the login", info.Mode().Perm()), "chmod go= "+path)
			}
		}
	}
	l := d.stack.local
	info, err := os.Stat(l.dir)
	if err != nil { // the stack was not made here
		return r.answer(fmt.Sprintf("%d files", count))
	}
	if info.Mode().Perm()&0o077 != 0 {
		r.problem(l.dir, fmt.Sprintf("its mode is %04o: others on this machine get at the stack's key", info.Mode().Perm()), "chmod go= "+l.dir)
	}
	for _, path := range []string{l.keyPath(), l.credentialPath(), l.kubeconfigPath(), filepath.Join(l.dir, pinsFile)} {
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			continue
		}
		count++
		var info fs.FileInfo
		if err == nil {
			info, err = f.Stat()
			f.Close()
		}
		switch {
		case err != nil:
			r.problem(path, err.Error(), "work as the user who made the stack")
		case info.Mode().Perm()&0o077 != 0:
			r.problem(path, fmt.Sprintf("its mode is %04o", info.Mode().Perm()), "chmod go= "+path)
		}
	}
	return r.answer(fmt.Sprintf("%d files", count))
}

func checkClock(_ context.Context, d *diagnosis) answer {
	skew := d.cloud().ClockSkew().Round(time.Second)
	if skew.Abs() > time.Minute {
		return warning(fmt.Sprintf("this machine is %v off", skew),
			"set the clock by NTP: certificates count as not yet or no longer valid when it is wrong")
	}
	return good("within %v", max(skew.Abs(), time.Second))
}

func checkToken(_ context.Context, d *diagnosis) answer {
	left := time.Until(d.cloud().TokenExpires()).Round(time.Minute)
	if left < 10*time.Minute {
		return warning(fmt.Sprintf("it ends in %v", left), "kuryrctl logs in again by itself, unless the login is a token: then take a fresh one")
	}
	return good("%v left", left)
}

// checkRoles: what a role may do is the cloud's own policy, of which only the usual names can be judged.
func checkRoles(_ context.Context, d *diagnosis) answer {
	roles := d.cloud().Roles()
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(roles, n) })
	}
	reader := len(roles) > 0 && !slices.ContainsFunc(roles, func(r string) bool { return r != "reader" && !strings.HasSuffix(r, "_observer") })
	give := func(role string) string {
		return fmt.Sprintf("as administrator: openstack role add --user %s --project %s %s", d.cloud().UserID(), d.cloud().ProjectID(), role)
	}
	said := strings.Join(roles, ", ")
	switch {
	case reader:
		return problem("the login may only read: "+said, give("member"))
	case d.stack.restricted():
		return problem(restrictedLogin, freeLogin)
	case !has("member", "admin", "manager", "_member_"):
		return warning("none of them is called member: "+said, "if something is refused (403): "+give("member"))
	case !has("load-balancer_member", "load-balancer_admin", "member", "admin"):
		return warning("none of them is Octavia's: "+said, "if Octavia refuses (403): "+give("load-balancer_member"))
	}
	return good("%s", said)
}

func checkCertificates(_ context.Context, d *diagnosis) answer {
	var r remarks
	var well []string
	for _, c := range d.cloud().Chains() {
		left := time.Until(c.Ends)
		ends := c.Ends.Format(time.DateOnly)
		well = append(well, c.Host+" until "+ends)
		switch {
		case !c.Verified:
			r.warning(c.Host, "its certificate is not verified, and whoever is between can read the password",
				"name the cloud's CA by cacert, and remove insecure or verify")
			r.whose = You
		case left < soon:
			r.warning(c.Host, fmt.Sprintf("the certificate of %s ends on %s", c.Ending, ends), "ask the operator of the cloud to renew it")
		}
	}
	if len(well) > 0 {
		return r.answer(strings.Join(well, ", "))
	}
	at, err := url.Parse(d.cloud().AuthURL())
	if err == nil && (at.Hostname() == "127.0.0.1" || d.options.Dial != nil) {
		return good("no TLS, and the cloud is on this machine")
	}
	return warning("no TLS: whoever is between can read the password and every token", "ask the operator of the cloud for https").of(TheCloud)
}
