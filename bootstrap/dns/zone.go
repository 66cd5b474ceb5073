package dns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
)

// ZoneFile is a zone of a stack's own, as two files for bind: DOMAIN.zone with the names and DOMAIN.conf, which the operator includes once in
// named.conf. Whose they are is their first line.
type ZoneFile struct {
	Domain     string
	Nameserver string // that serves the zone: a name without the final dot, or an IPv4 address, which is then called ns.DOMAIN
	Directory  string // absolute, on this machine or on Host
	// Host, if set, has the directory and runs bind, which is told of every change. It is Directory of this machine otherwise, and telling
	// is the operator's.
	Host *ssh.Client
}

func (z ZoneFile) String() string { return path.Join(z.Directory, z.Domain+".zone") }

// nothing is what the fragment holds when the zone is gone: an include of a file that is not there keeps bind from starting.
const nothing = "// kuryrctl has no zone here.\n"

// Sync implements [Place].
func (z ZoneFile) Sync(ctx context.Context, owner Owner, want []Record, before func() error) ([]Change, error) {
	changes, err := z.sync(ctx, owner, want, before)
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", z, err)
	}
	return changes, nil
}

func (z ZoneFile) sync(ctx context.Context, owner Owner, want []Record, before func() error) ([]Change, error) {
	var files fileKeeper = localFiles(z.Directory)
	if z.Host != nil {
		files = hostFiles{z.Host, z.Directory}
	}
	text, err := files.read(ctx, z.Domain+".zone")
	if err != nil {
		return nil, err
	}
	conf, err := files.read(ctx, z.Domain+".conf")
	if err != nil {
		return nil, err
	}
	there, serial, err := z.parse(owner, text)
	if err != nil {
		return nil, err
	}
	changes := compare(there, want)
	if len(want) == 0 {
		if text == "" && (conf == "" || conf == nothing) {
			return changes, nil
		}
		if err := before(); err != nil {
			return nil, err
		}
		// The fragment goes first: a zone without its file is an error of bind's.
		if err := files.write(ctx, z.Domain+".conf", nothing); err != nil {
			return nil, err
		}
		if err := files.reload(ctx, ""); err != nil {
			return nil, err
		}
		return changes, files.remove(ctx, z.Domain+".zone")
	}
	wanted, err := z.Render(owner, want, serial)
	if err != nil {
		return nil, err
	}
	if text != wanted || conf != z.Fragment() {
		if err := before(); err != nil {
			return nil, err
		}
	}
	if text != wanted {
		if wanted, err = z.Render(owner, want, max(serial+1, uint32(time.Now().Unix()))); err != nil {
			return nil, err
		}
		if err := files.write(ctx, z.Domain+".zone", wanted); err != nil {
			return nil, err
		}
	}
	if conf != z.Fragment() {
		if err := files.write(ctx, z.Domain+".conf", z.Fragment()); err != nil {
			return nil, err
		}
	}
	return changes, files.reload(ctx, z.Domain) // also of what is as it should be: a run before may have ended before this
}

// Fragment is what named.conf includes: the zone and where its file is.
func (z ZoneFile) Fragment() string {
	return fmt.Sprintf("// Made by kuryrctl; named.conf has: include %q;\nzone %q {\n\ttype primary;\n\tfile %q;\n};\n", path.Join(z.Directory, z.Domain+".conf"), z.Domain, z.String())
}

// Render is the zone file. Secondaries take a zone whose serial is higher than theirs.
func (z ZoneFile) Render(owner Owner, records []Record, serial uint32) (string, error) {
	apex, server := miekg.Fqdn(z.Domain), miekg.Fqdn(z.Nameserver)
	header := func(name string, kind uint16) miekg.RR_Header {
		return miekg.RR_Header{Name: name, Rrtype: kind, Class: miekg.ClassINET, Ttl: TTL}
	}
	address, err := netip.ParseAddr(z.Nameserver)
	if err == nil {
		server = "ns." + apex
	} else if _, ok := miekg.IsDomainName(z.Nameserver); !ok || z.Nameserver == "" {
		return "", fmt.Errorf("the name server %q is neither a name nor an address", z.Nameserver)
	}
	rrs := []miekg.RR{
		&miekg.SOA{Hdr: header(apex, miekg.TypeSOA), Ns: server, Mbox: "hostmaster." + apex, Serial: serial, Refresh: 3600, Retry: 600, Expire: 1209600, Minttl: 60},
		&miekg.NS{Hdr: header(apex, miekg.TypeNS), Ns: server},
	}
	if err == nil {
		rrs = append(rrs, addressRecord(Record{"ns." + z.Domain, address}))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "; %s\n", heading(owner))
	for _, rr := range rrs {
		fmt.Fprintln(&b, rr)
	}
	b.WriteString(named)
	for _, r := range records {
		fmt.Fprintln(&b, addressRecord(r))
	}
	return b.String(), nil
}

// named parts the zone's own records from those that are asked for.
const named = "; names\n"

// parse reads back what was rendered. A file that is not ours is never written over.
func (z ZoneFile) parse(owner Owner, text string) (names map[string]netip.Addr, serial uint32, err error) {
	names = map[string]netip.Addr{}
	if text == "" {
		return names, 0, nil
	}
	first, rest, _ := strings.Cut(text, "\n")
	whose, ours := strings.CutPrefix(first, "; "+heritage)
	if !ours {
		return nil, 0, errors.New("there is such a file, and kuryrctl did not make it: declare another directory")
	}
	stack, uuid, _ := strings.Cut(whose, ",uuid=")
	if stack != owner.Stack || owner.UUID != "" && uuid != owner.UUID {
		return nil, 0, fmt.Errorf("%w, %s, uuid %s: declare another dns_domain", ErrOther, stack, uuid)
	}
	_, listed, _ := strings.Cut(rest, named)
	for parser := miekg.NewZoneParser(strings.NewReader(listed), "", ""); ; {
		rr, ok := parser.Next()
		if !ok {
			err = parser.Err()
			break
		}
		if a, ok := rr.(*miekg.A); ok {
			names[strings.TrimSuffix(a.Hdr.Name, ".")], _ = netip.AddrFromSlice(a.A.To4())
		}
	}
	for parser := miekg.NewZoneParser(strings.NewReader(rest), "", ""); err == nil; {
		rr, ok := parser.Next()
		if !ok {
			err = parser.Err()
			break
		}
		if soa, ok := rr.(*miekg.SOA); ok {
			serial = soa.Serial
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("it is damaged (%w): remove it, and it is made anew", err)
	}
	return names, serial, nil
}

// fileKeeper keeps small files in a directory, here or on a host. A file that is not there reads as "".
type fileKeeper interface {
	read(ctx context.Context, name string) (string, error)
	write(ctx context.Context, name, text string) error
	remove(ctx context.Context, name string) error
	reload(ctx context.Context, zone string) error // makes bind read what has changed, and load the zone if it has a name
}

// localFiles is a directory of this machine.
type localFiles string

func (d localFiles) read(_ context.Context, name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(string(d), name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// write leaves the old content or the new, never a part of either.
func (d localFiles) write(_ context.Context, name, text string) (err error) {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(string(d), "."+name+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name()) // nothing to add when this fails too
		}
	}()
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(0o644) // bind is another user
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(string(d), name))
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (d localFiles) remove(_ context.Context, name string) error {
	err := os.Remove(filepath.Join(string(d), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d localFiles) reload(context.Context, string) error { return nil }

// hostFiles is a directory of a host that is root's.
type hostFiles struct {
	host *ssh.Client
	dir  string
}

func (d hostFiles) run(ctx context.Context, title, script, name, stdin string) (string, error) {
	out, err := d.host.Run(ctx, ssh.Command{Sudo: true, Stdin: strings.NewReader(stdin),
		Line: fmt.Sprintf("# %s\nset -eu\ndir=%s name=%s\n%s", title, ssh.Quote(d.dir), ssh.Quote(name), script)})
	return out.Stdout, err
}

func (d hostFiles) read(ctx context.Context, name string) (string, error) {
	return d.run(ctx, "read "+name, `if [ -e "$dir/$name" ]; then cat "$dir/$name"; fi`, name, "")
}

func (d hostFiles) write(ctx context.Context, name, text string) error {
	_, err := d.run(ctx, "write "+name, `umask 022
mkdir -p "$dir"
cat >"$dir/.$name.new"
[ "$(wc -c <"$dir/.$name.new")" -eq `+strconv.Itoa(len(text))+` ]
sync "$dir/.$name.new"
mv "$dir/.$name.new" "$dir/$name"`, name, text)
	return err
}

func (d hostFiles) remove(ctx context.Context, name string) error {
	_, err := d.run(ctx, "remove "+name, `rm -f "$dir/$name"`, name, "")
	return err
}

func (d hostFiles) reload(ctx context.Context, zone string) error {
	if _, err := d.run(ctx, "make bind read its configuration", "rndc reconfig", "", ""); err != nil {
		return fmt.Errorf("%w: is bind running there?", err)
	}
	if zone == "" {
		return nil
	}
	_, err := d.run(ctx, "make bind load "+zone, `rndc reload "$name"`, zone, "")
	if err != nil {
		return fmt.Errorf("%w: named.conf of that host must have the line: include %q;", err, path.Join(d.dir, zone+".conf"))
	}
	return nil
}
