// Package sim runs the real producer, transport and consumer of several
// processes over one metadata store and one segment store in memory, in virtual time,
// and lets a scheduler decide, by a seed, what every call on a port meets: it is
// carried out, refused, carried out with its answer lost or held back, carried out
// twice, left lying until its caller gives up, or its process dies.
//
// In other runs the writers and followers reach the stores through two to five
// agents: the real gRPC clients and servers, over pipes in memory, in the same bubble. Agents
// die between any two calls, are stopped and wake late with what they held, are cut off before
// or after an effect, fall silent, and drain under load; clients go to the next one.
//
// The same seed gives the same run, without agents. With agents the goroutines
// inside gRPC race for what is ready at one instant, so that about a third of the seeds vary
// from run to run: their histories are checked all the same, but a failure may need several
// tries to come again. Afterwards everything heals, what the
// clients saw is checked by package history, and the stores' inner invariants
// are checked too.
//
// Replay one seed, with its trace:
//
//	go test ./test/sim -run TestSimulation -seed 42
//	go test ./test/sim -run ThroughAgents -agentseed 42 -v
package sim
