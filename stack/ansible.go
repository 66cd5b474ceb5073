package stack

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
)

// AnsibleStyle says by which names playbooks know the groups of nodes.
type AnsibleStyle string

// The styles.
const (
	Kubespray AnsibleStyle = "kubespray" // kube_control_plane, etcd, kube_node, k8s_cluster
	OpenShift AnsibleStyle = "openshift" // OSEv3: masters, etcd, nodes, and the variables of the 2017 write-up
)

// AnsibleStyles lists the styles.
func AnsibleStyles() []AnsibleStyle { return []AnsibleStyle{Kubespray, OpenShift} }

// Ansible is an inventory for Ansible. There is no secret in it: keys are named by their paths.
type Ansible struct {
	hosts  []string
	vars   map[string]map[string]any // of hosts
	groups []ansibleGroup
}

type ansibleGroup struct {
	name     string
	hosts    []string
	children []string
	vars     map[string]any
}

// Ansible makes an inventory of a stack that was shown. Hosts are reached as kuryrctl reaches them: through the first master, with the stack's
// key, and with no host key but the pinned one. On a machine that does not have the stack's key, the inventory has no word of keys, and keyless is true.
func (s *Stack) Ansible(v *View, style AnsibleStyle) (a *Ansible, keyless bool, err error) {
	a = &Ansible{vars: map[string]map[string]any{}}
	var masters, workers []string
	for _, n := range v.Nodes {
		a.hosts = append(a.hosts, n.Name)
		if n.Role == string(Master) {
			masters = append(masters, n.Name)
		} else {
			workers = append(workers, n.Name)
		}
	}
	var options []string
	key := ""
	if s.local.hasKey() {
		if key, err = filepath.Abs(s.local.keyPath()); err != nil {
			return nil, false, err
		}
		known, err := s.keepKnownHosts()
		if err != nil {
			return nil, false, err
		}
		options = []string{"-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + known}
	}
	jump := slices.IndexFunc(v.Nodes, func(n NodeView) bool { return n.FloatingIP != "" })
	for i, n := range v.Nodes {
		vars := map[string]any{"ansible_host": cmp.Or(n.FloatingIP, n.Address), "ansible_user": n.Login, "ansible_become": true}
		args := s.aliased(options, n.Name)
		if key != "" {
			vars["ansible_ssh_private_key_file"] = key
		}
		if n.FloatingIP == "" && jump >= 0 && i != jump {
			through := v.Nodes[jump]
			proxy := []string{"ssh", "-W", "%h:%p"}
			if key != "" {
				proxy = append(proxy, "-i", key)
			}
			proxy = append(append(proxy, s.aliased(options, through.Name)...), through.Login+"@"+through.FloatingIP)
			args = append(args, "-o", "ProxyCommand="+words(proxy))
		}
		if len(args) > 0 {
			vars["ansible_ssh_common_args"] = words(args)
		}
		a.vars[n.Name] = vars
	}
	var api []string
	for _, i := range (Config{Masters: Nodes{Count: len(masters)}}).APIMasters() {
		if i < len(masters) {
			api = append(api, masters[i])
		}
	}
	etcd := api
	if len(masters) == 2 {
		etcd = masters[:1]
	}
	switch style {
	case Kubespray:
		a.groups = []ansibleGroup{{name: "kube_control_plane", hosts: api}, {name: "etcd", hosts: etcd}, {name: "kube_node", hosts: workers},
			{name: "k8s_cluster", children: []string{"kube_control_plane", "kube_node"}}}
	case OpenShift:
		a.groups = []ansibleGroup{{name: "OSEv3", children: []string{"masters", "etcd", "nodes"}, vars: s.openShiftVars(v)}, {name: "masters", hosts: api}, {name: "etcd", hosts: etcd},
			{name: "nodes", hosts: append(slices.Clone(api), workers...)}}
	default:
		return nil, false, fmt.Errorf("the style %q is not known: there are %s and %s", style, Kubespray, OpenShift)
	}
	return a, key == "", nil
}

// aliased are options of ssh with the name that the host's key is pinned under: addresses are handed out again, names of nodes are not.
func (s *Stack) aliased(options []string, node string) []string {
	if len(options) == 0 {
		return nil
	}
	return append(slices.Clone(options), "-o", "HostKeyAlias="+s.Name+"."+node)
}

// keepKnownHosts writes the pinned host keys as ssh reads them.
func (s *Stack) keepKnownHosts() (path string, err error) {
	pins, err := s.pins()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, node := range pins.Nodes() {
		pin, _ := pins.Node(node)
		for _, key := range pin.Keys {
			fmt.Fprintf(&b, "%s.%s %s\n", s.Name, node, key)
		}
	}
	path, err = filepath.Abs(filepath.Join(s.local.dir, "known_hosts"))
	if err != nil {
		return "", err
	}
	if was, err := os.ReadFile(path); err == nil && string(was) == b.String() {
		return path, nil
	}
	if err := s.local.keep(path, []byte(b.String())); err != nil {
		return "", fmt.Errorf("writing the pinned host keys for ssh: %w", err)
	}
	return path, nil
}

// openShiftVars are what the 2017 write-up had people copy by hand, without the password.
func (s *Stack) openShiftVars(v *View) map[string]any {
	vars := map[string]any{"openshift_use_kuryr": true, "openshift_use_openshift_sdn": false, "os_sdn_network_plugin_name": "cni",
		"kuryr_openstack_pod_project_id": s.session.Cloud.ProjectID()}
	for _, n := range v.Networks {
		switch n.Name {
		case s.session.Name("pod_net"):
			vars["kuryr_openstack_pod_subnet_id"] = n.SubnetID
		case s.session.Name("service_net"):
			vars["kuryr_openstack_service_subnet_id"] = n.SubnetID
		case s.session.Name("vm_net"):
			vars["kuryr_openstack_worker_nodes_subnet_id"] = n.SubnetID
		}
	}
	for _, g := range v.SecurityGroups {
		if g.Name == s.session.Name("pod_access") {
			vars["kuryr_openstack_pod_sg_id"] = g.ID
		}
	}
	return vars
}

// INI writes the inventory as Ansible's ini plugin reads it.
func (a *Ansible) INI(w io.Writer) error {
	var b strings.Builder
	b.WriteString("[all]\n")
	for _, h := range a.hosts {
		b.WriteString(h)
		for _, k := range slices.Sorted(maps.Keys(a.vars[h])) {
			b.WriteString(" " + k + "=" + word(python(a.vars[h][k])))
		}
		b.WriteString("\n")
	}
	for _, g := range a.groups {
		if len(g.children) > 0 {
			fmt.Fprintf(&b, "\n[%s:children]\n%s\n", g.name, strings.Join(g.children, "\n"))
		} else {
			fmt.Fprintf(&b, "\n[%s]\n", g.name)
		}
		for _, h := range g.hosts {
			fmt.Fprintln(&b, h)
		}
		if len(g.vars) > 0 {
			fmt.Fprintf(&b, "\n[%s:vars]\n", g.name)
		}
		for _, k := range slices.Sorted(maps.Keys(g.vars)) {
			fmt.Fprintf(&b, "%s=%s\n", k, pythonLiteral(g.vars[k]))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// YAML writes the inventory as Ansible's yaml plugin reads it.
func (a *Ansible) YAML(w io.Writer) error {
	children := map[string]any{}
	for _, g := range a.groups {
		group := map[string]any{}
		if len(g.hosts) > 0 {
			hosts := map[string]any{}
			for _, h := range g.hosts {
				hosts[h] = map[string]any{}
			}
			group["hosts"] = hosts
		}
		if len(g.children) > 0 {
			below := map[string]any{}
			for _, c := range g.children {
				below[c] = map[string]any{}
			}
			group["children"] = below
		}
		if len(g.vars) > 0 {
			group["vars"] = g.vars
		}
		children[g.name] = group
	}
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	return errors.Join(e.Encode(map[string]any{"all": map[string]any{"hosts": a.vars, "children": children}}), e.Close())
}

// python is a value as the ini plugin takes it on a host's line, where it reads Python's literals.
func python(v any) string {
	switch v := v.(type) {
	case bool:
		if v {
			return "True"
		}
		return "False"
	case string:
		return v
	}
	return fmt.Sprint(v)
}

// pythonLiteral is the same for a group's variables, where a text of digits would become a number.
func pythonLiteral(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(s)
	}
	return python(v)
}

// words are arguments as a shell, and Ansible, read them.
func words(all []string) string {
	out := make([]string, len(all))
	for i, w := range all {
		out[i] = word(w)
	}
	return strings.Join(out, " ")
}

func word(w string) string {
	if w != "" && strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@%+,") == "" {
		return w
	}
	return ssh.Quote(w)
}
