package openstack

import "strings"

// An object says whose it is in its description, which every create call of Neutron and Octavia takes, so that a crash right after
// leaves nothing that nobody owns. It is matched exactly: stack "demo" owns nothing of stack "demo-2".
const (
	markPrefix    = "kuryrctl stack="
	stackMetadata = "kuryrctl:stack"
	keyMetadata   = "kuryrctl:key"
)

// Mark is the description that every object of the stack is created with. Neutron's and Octavia's list calls filter by it.
func Mark(stack string) string { return markPrefix + stack }

// StackOf reads back [Mark].
func StackOf(description string) (stack string, ok bool) {
	stack, ok = strings.CutPrefix(description, markPrefix)
	if !ok || stack == "" || strings.ContainsAny(stack, " \t\n") { // a sentence that happens to begin like a mark
		return "", false
	}
	return stack, true
}

// ServerMetadata is the same for Nova, which takes it at creation, with the resource that the server is.
func ServerMetadata(stack, key string) map[string]string {
	return map[string]string{stackMetadata: stack, keyMetadata: key}
}

// ServerStack reads back [ServerMetadata].
func ServerStack(metadata map[string]string) (stack, key string, ok bool) {
	stack = metadata[stackMetadata]
	return stack, metadata[keyMetadata], stack != ""
}

// ServiceMark is the description of what belongs to the stack and, in it, to one Service of its cluster, which service names.
func ServiceMark(stack, service string) string { return Mark(stack) + serviceMark + service }

// ServiceOf reads back [ServiceMark].
func ServiceOf(stack, description string) (service string, ok bool) {
	return strings.CutPrefix(description, Mark(stack)+serviceMark)
}

const serviceMark = " service="

// DropTestMark is the description of the stack's ports that are for a test and for no pod.
func DropTestMark(stack string) string { return Mark(stack) + " droptest" }
