package picture

import "strings"

// tone is what a state means to a person. It is shown as a colour and as a mark, and the state's own word is never left out.
type tone int

// The tones, from good to bad.
const (
	plain tone = iota // there is no state, or one that says neither
	good
	busy
	down
	bad
)

func (t tone) String() string { return [...]string{"plain", "good", "busy", "down", "bad"}[t] }

// mark tells tones apart without their colours.
func (t tone) mark() string { return [...]string{"·", "●", "◐", "○", "✕"}[t] }

// worse joins the tones of two states of one thing. What is on its way is not up yet, and no fault.
func worse(a, b tone) tone {
	if a == busy && b == down || a == down && b == busy {
		return busy
	}
	return max(a, b)
}

// toneOf knows the words of Nova, Neutron and Octavia.
func toneOf(state string) tone {
	switch state {
	case "ACTIVE", "ONLINE", "UP":
		return good
	case "", "NO_MONITOR", "N/A":
		return plain
	case "ERROR", "DELETED", "SOFT_DELETED":
		return bad
	case "BUILD", "REBUILD", "REBOOT", "HARD_REBOOT", "PASSWORD", "DRAINING", "CREATED", "RESIZE", "VERIFY_RESIZE", "MIGRATING":
		return busy
	}
	if strings.HasPrefix(state, "PENDING_") {
		return busy
	}
	return down
}
