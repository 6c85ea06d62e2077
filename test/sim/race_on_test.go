//go:build race

package sim

// shuffled: the race detector has the runtime run goroutines in an order of its
// own, so a seed does not decide everything.
const shuffled = true
