package openstack

import "strings"

// An object says whose it is in two ways, because Neutron takes a description but (most often) no tags in the call that
// creates: the description is there from birth, so that a crash right after leaves nothing that nobody owns, and the tags carry what
// the object is for. Both are matched exactly: stack "demo" owns nothing of stack "demo-2".
const (
	markPrefix     = "kuryrctl stack="
	stackTagPrefix = "kuryrctl:stack="
	keyTagPrefix   = "kuryrctl:key="
	stackMetadata  = "kuryrctl:stack"
	keyMetadata    = "kuryrctl:key"
)

// Mark is the description that every object of the stack is created with. Neutron's and Octavia's list calls filter by it.
func Mark(stack string) string { return markPrefix + stack }

// Tags say which stack an object belongs to and which of its resources it is. Neutron takes them after the creation,
// Octavia with it.
func Tags(stack, key string) []string {
	return []string{stackTagPrefix + stack, keyTagPrefix + key}
}

// ServerMetadata is the same for Nova, which takes it at creation.
func ServerMetadata(stack, key string) map[string]string {
	return map[string]string{stackMetadata: stack, keyMetadata: key}
}

// StackOf reads back [Mark] and [Tags]. Either is enough; where they name different stacks, the object is nobody's, since deleting
// another's object is worse than leaving one's own.
func StackOf(description string, tags []string) (stack string, ok bool) {
	stack, ok = strings.CutPrefix(description, markPrefix)
	if strings.ContainsAny(stack, " \t\n") { // a sentence that happens to begin like a mark
		ok = false
	}
	if !ok {
		stack = ""
	}
	for _, tag := range tags {
		name, found := strings.CutPrefix(tag, stackTagPrefix)
		if !found || name == "" {
			continue
		}
		if stack != "" && name != stack {
			return "", false
		}
		stack = name
	}
	return stack, stack != ""
}

// ServerStack reads back [ServerMetadata].
func ServerStack(metadata map[string]string) (stack, key string, ok bool) {
	stack = metadata[stackMetadata]
	return stack, metadata[keyMetadata], stack != ""
}
