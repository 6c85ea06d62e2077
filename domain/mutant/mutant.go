// Package mutant names the planted bugs that the simulator must find.
//
// In a normal build On is the constant false and the compiler removes every
// mutated branch. Built with the tag "mutants", one bug at a time can be
// switched on with Set; test/sim runs each and demands that it is killed.
package mutant

// ID names one planted bug.
type ID string
