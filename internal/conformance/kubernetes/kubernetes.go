//go:build tools

// Package kubernetes pins the end-to-end tests of Kubernetes, at the version of the bundle: a module of its own, for their libraries are no
// part of the product. It is never built; its imports are what go.mod is tidied for.
package kubernetes

import (
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
