// Command kuryr-cni is the CNI plugin, which a container runtime starts for every pod. All of it is package nodeagent/cni.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/kuryrctl/kuryrctl/nodeagent/cni"
)

var version = "dev" // set by the build

func main() {
	skel.PluginMainFuncs(cni.Funcs(os.Stdout), cni.Versions(), "kuryr-cni "+version)
}
