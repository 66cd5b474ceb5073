package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
)

// registry is where kubeadm's images are, by name; where they come from is another matter.
const registry = "registry.k8s.io"

// dockerHub is where the registry's and the router's projects publish.
const dockerHub = "docker.io"

// The images of what a stack brings along beside Kubernetes. The demo is kuryrctl's own and published nowhere; its host sees to it
// that nothing else is ever pulled under that name.
const (
	RegistryImage = dockerHub + "/library/registry:3.1.2"
	RouterImage   = dockerHub + "/library/traefik:v3.7.13"
	DemoImage     = "localhost/kuryrctl/demo:v1"
)

// Versions are those of what a Kubernetes release is run with.
type Versions struct {
	Etcd, CoreDNS, Pause              string // tags of the images that kubeadm of that release asks for
	Containerd, Runc, Plugins, Crictl string // upstream's releases
}

// thirdParty is the one table of them. The tags are those of cmd/kubeadm/app/constants of the release.
var thirdParty = map[string]Versions{
	"v1.37": {Etcd: "3.7.0-0", CoreDNS: "v1.14.6", Pause: "3.10.2", Containerd: "v2.4.2", Runc: "v1.5.2", Plugins: "v1.9.1", Crictl: "v1.36.0"},
	"v1.36": {Etcd: "3.6.8-0", CoreDNS: "v1.14.2", Pause: "3.10.2", Containerd: "v2.4.2", Runc: "v1.5.2", Plugins: "v1.9.1", Crictl: "v1.35.0"},
	"v1.35": {Etcd: "3.6.6-0", CoreDNS: "v1.13.1", Pause: "3.10.1", Containerd: "v2.4.2", Runc: "v1.5.2", Plugins: "v1.8.0", Crictl: "v1.34.0"},
}

// Plugins are the CNI plugins of every node, as upstream's source has them: those that are chained to kuryrctl's own.
// Nothing here calls the rest of upstream's.
func Plugins() []string {
	return []string{"main/loopback", "meta/portmap", "meta/bandwidth"}
}

// knownMinors are the minors of the table, the oldest first.
func knownMinors() []string {
	return slices.SortedFunc(maps.Keys(thirdParty), semver.Compare)
}

// VersionsFor are the versions that belong to a release of Kubernetes, by its minor.
func VersionsFor(kubernetes string) (Versions, error) {
	v, ok := thirdParty[semver.MajorMinor(kubernetes)]
	if !ok {
		return v, fmt.Errorf("looking for what belongs to Kubernetes %s: known are the releases of %s", kubernetes,
			strings.Join(knownMinors(), ", "))
	}
	return v, nil
}

// The images of a release, as kubeadm names them.
func (v Versions) EtcdImage() string    { return registry + "/etcd:" + v.Etcd }
func (v Versions) CoreDNSImage() string { return registry + "/coredns/coredns:" + v.CoreDNS }
func (v Versions) PauseImage() string   { return registry + "/pause:" + v.Pause }

// ComponentImage is the image of a part of Kubernetes itself, such as kube-apiserver.
func ComponentImage(component, kubernetes string) string {
	return registry + "/" + component + ":" + kubernetes
}
