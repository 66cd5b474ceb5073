package main

import (
	"fmt"
	"io"
)

// exitCode prints err for a person and maps it to the documented exit code.
func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "kuryrctl: %v\n", err)
	return 1
}
