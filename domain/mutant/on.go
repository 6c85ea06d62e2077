//go:build mutants

package mutant

import "sync/atomic"

var active atomic.Value

// On reports whether the planted bug id is active.
func On(id ID) bool {
	current, _ := active.Load().(ID)
	return current != "" && current == id
}

// Set activates one planted bug, or none with "".
func Set(id ID) { active.Store(id) }
