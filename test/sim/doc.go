// Package sim runs the real producer, transport and consumer of several
// processes over one metadata store and one segment store in memory, in virtual time,
// and lets a scheduler decide, by a seed, what every call on a port meets: it is
// carried out, refused, carried out with its answer lost or held back, carried out
// twice, left lying until its caller gives up, or its process dies.
//
// The same seed gives the same run. Afterwards everything heals, what the
// clients saw is checked by package history, and the stores' inner invariants
// are checked too.
//
// Replay one seed, with its trace:
//
//	go test ./test/sim -run TestSimulation -seed 42
package sim
