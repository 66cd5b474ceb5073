package bootstrap

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/templates"
)

// Condition is how a node is at one moment: facts, which somebody else has to judge.
type Condition struct {
	Hostname     string
	Skew         time.Duration // of its clock against this machine's, at least; positive is ahead
	CloudInit    string        // "done", "running", what went wrong, or "" where there is none
	Swap         []string      // devices
	MemoryKiB    int
	AvailableKiB int
	Disks        []Disk
	Unloaded     []string // kernel modules that are needed
	CgroupV2     bool
	Sysctls      []string // each as "KEY is VALUE, not VALUE"
	Nameservers  map[string]bool
	Interface    string // of the default route, "" without one
	MTU          int
	VLANsFree    bool // NetworkManager has a rule that lets VLAN links alone
	Units        map[string]Unit
	Uptime       time.Duration
	Containerd   string // "answers", what it says instead, or "" where there is no ctr
	NoImages     []string
	Preferred    []string // configurations of other network plugins that the runtime takes in the place of ours
	KubeletLog   []string // the last lines, of one that does not run or has been restarted
	Certificates []Certificate
}

// Disk is a file system.
type Disk struct {
	At               string
	SizeKiB, FreeKiB int
}

// Unit is a unit of systemd.
type Unit struct {
	Active, Sub string
	Restarts    int           // that systemd made because it ended
	Since       time.Duration // after boot
}

// Certificate is one that a node's own components show, and when it ends.
type Certificate struct {
	File string
	Ends time.Time
}

// modules are those of the kernel that a node needs; the same are in modules.conf.
var modules = strings.Fields(string(templates.NodeFile("modules.conf")))

// sysctls are the kernel's settings that a node needs.
var sysctls = settings(string(templates.NodeFile("sysctl.conf")))

func settings(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, "="); ok {
			all[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return all
}

// ErrSudo means that the login user of a host may not become root without a password.
var ErrSudo = errors.New("sudo wants a password")

// Inspect reads the condition of a host in one command. It changes nothing.
func Inspect(ctx context.Context, client *ssh.Client) (*Condition, error) {
	begin := time.Now()
	script := templates.Script("inspect", map[string]string{"modules": strings.Join(modules, " "), "sysctls": strings.Join(slices.Sorted(maps.Keys(sysctls)), " ")})
	out, err := client.Run(ctx, ssh.Command{Line: script, Sudo: true})
	if failed := (*ssh.RunError)(nil); errors.As(err, &failed) && strings.Contains(out.Stderr, "password is required") {
		return nil, ErrSudo
	}
	if err != nil {
		return nil, err
	}
	c, err := condition(out.Stdout, begin, time.Now())
	if err != nil {
		return nil, fmt.Errorf("reading the state of the node: %w", err)
	}
	return c, nil
}

// condition reads what the script printed between two moments of this machine's clock.
func condition(printed string, begin, end time.Time) (*Condition, error) {
	if !strings.HasSuffix(printed, "looked=yes\n") {
		return nil, fmt.Errorf("the look did not get to its end; its last words are %q", printed[max(0, len(printed)-100):])
	}
	c := &Condition{Nameservers: map[string]bool{}, Units: map[string]Unit{}}
	file, name, unit := "", "", Unit{}
	are := map[string]string{}
	for rest := printed; rest != ""; {
		line, after, _ := strings.Cut(rest, "\n")
		if strings.HasPrefix(line, "-----BEGIN") {
			block, more := pem.Decode([]byte(rest))
			if block == nil {
				return nil, fmt.Errorf("%s holds no PEM", file)
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			c.Certificates, rest = append(c.Certificates, Certificate{file, cert.NotAfter}), string(more)
			continue
		}
		rest = after
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "time":
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return nil, fmt.Errorf("its clock: %w", err)
			}
			switch there := time.UnixMicro(int64(seconds * 1e6)); {
			case there.Before(begin):
				c.Skew = there.Sub(begin).Round(10 * time.Millisecond)
			case there.After(end):
				c.Skew = there.Sub(end).Round(10 * time.Millisecond)
			}
		case "uptime":
			seconds, _ := strconv.ParseFloat(value, 64)
			c.Uptime = time.Duration(seconds * float64(time.Second))
		case "cert":
			file = value
		case "sysctl":
			maps.Copy(are, settings(value))
		case "unit.Id":
			name = value
		case "unit.end":
			if name != "" {
				c.Units[name] = unit
			}
			name, unit = "", Unit{}
		default:
			if property, ok := strings.CutPrefix(key, "unit."); ok {
				unit.set(property, value)
			} else {
				c.set(key, value)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(sysctls)) {
		if are[key] != sysctls[key] {
			c.Sysctls = append(c.Sysctls, fmt.Sprintf("%s is %s, not %s", key, cmp.Or(are[key], "not there"), sysctls[key]))
		}
	}
	return c, nil
}

func (u *Unit) set(property, value string) {
	switch property {
	case "ActiveState":
		u.Active = value
	case "SubState":
		u.Sub = value
	case "NRestarts":
		u.Restarts, _ = strconv.Atoi(value)
	case "ActiveEnterTimestampMonotonic":
		micro, _ := strconv.ParseInt(value, 10, 64)
		u.Since = time.Duration(micro) * time.Microsecond
	}
}

func (c *Condition) set(key, value string) {
	switch words := strings.Fields(value); key {
	case "hostname":
		c.Hostname = value
	case "cloudinit":
		c.CloudInit = cloudInit(value)
	case "swap":
		c.Swap = append(c.Swap, value)
	case "MemTotal":
		c.MemoryKiB, _ = strconv.Atoi(value)
	case "MemAvailable":
		c.AvailableKiB, _ = strconv.Atoi(value)
	case "disk":
		if len(words) == 3 {
			d := Disk{At: words[2]}
			d.SizeKiB, _ = strconv.Atoi(words[0])
			d.FreeKiB, _ = strconv.Atoi(words[1])
			c.Disks = append(c.Disks, d)
		}
	case "unloaded":
		c.Unloaded = append(c.Unloaded, value)
	case "cgroup":
		c.CgroupV2 = value == "2"
	case "nameserver":
		if len(words) == 2 && words[1] != "127" { // without a bash to ask it is not known
			c.Nameservers[words[0]] = words[1] == "0"
		}
	case "default":
		if len(words) == 2 {
			c.Interface = words[0]
			c.MTU, _ = strconv.Atoi(words[1])
		}
	case "nmrule":
		c.VLANsFree = c.VLANsFree || strings.Contains(value, "type:vlan") || strings.HasPrefix(value, "unmanaged-devices=*")
	case "ctr":
		c.Containerd = value
	case "noimage":
		c.NoImages = append(c.NoImages, value)
	case "cni":
		if value < path.Base(cniConfig) { // the runtime takes the first in the order of bytes, and that one only
			c.Preferred = append(c.Preferred, path.Join(path.Dir(cniConfig), value))
		}
	case "kubeletlog":
		c.KubeletLog = append(c.KubeletLog, value)
	}
}

// cloudInit reads /run/cloud-init/result.json.
func cloudInit(value string) string {
	var result struct {
		V1 struct{ Errors []string }
	}
	switch err := json.Unmarshal([]byte(value), &result); {
	case value == "running":
		return value
	case err != nil:
		return "its result cannot be read: " + err.Error()
	case len(result.V1.Errors) > 0:
		return strings.Join(result.V1.Errors, "; ")
	}
	return "done"
}
