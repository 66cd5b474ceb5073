package vif

// DropTest is what `kuryr-node droptest` reads from its standard input: two subports of its node that no pod has. From the first it connects
// to the second, and prints the [Passage].
type DropTest struct {
	ParentMAC string  `json:"parentMAC"` // of the trunk's parent port
	From      Subport `json:"from"`
	To        Subport `json:"to"`
	// Open says that the group of the second lets the connection in: it is tried until it passes. Else the first answer counts.
	Open    bool `json:"open"`
	Seconds int  `json:"seconds"` // to try for, at most
}

// DropTestPort is the TCP port that the connection goes to.
const DropTestPort = 7

// Passage is what became of the connection.
type Passage string

// The passages there are.
const (
	Passed      Passage = "passed"
	Dropped     Passage = "dropped"     // the second subport was found by ARP, and nothing came back
	Unreachable Passage = "unreachable" // it was not even found
)
