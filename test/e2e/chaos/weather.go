package chaos

import (
	"math/rand/v2"
	"time"

	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
)

// Chances are how often a request to the bucket, and a statement, meets each
// fault.
type Chances struct{ Request, Statement float64 }

// Spoil makes requests to the bucket and statements fail at random, before and
// after their effect, until Clear of the one and Intercept(nil) of the other. Random is used by
// one goroutine at a time.
func Spoil(toServer *faultproxy.Postgres, toBucket *faultproxy.HTTP, c Chances, random *rand.Rand) {
	for _, f := range []faultproxy.Fault{
		faultproxy.Answer(503), faultproxy.Answer(500), faultproxy.Answer(429), faultproxy.AnswerAfter(500), faultproxy.AnswerAfter(503),
		faultproxy.Reset(), faultproxy.ResetAfter(), faultproxy.Delay(300 * time.Millisecond), faultproxy.DelayAfter(300 * time.Millisecond),
	} {
		toBucket.Inject(faultproxy.Rule{Method: "PUT", Chance: c.Request, Fault: f})
	}
	for _, f := range []faultproxy.Fault{faultproxy.Answer(503), faultproxy.Answer(500), faultproxy.Reset(), faultproxy.Truncate(10)} {
		toBucket.Inject(faultproxy.Rule{Method: "GET", Chance: c.Request, Fault: f})
	}
	toServer.Intercept(func(m faultproxy.Message) faultproxy.Action { // one at a time
		if !m.Runs() {
			return faultproxy.Pass
		}
		switch x := random.Float64(); {
		case x < c.Statement:
			return faultproxy.LoseReply
		case x < 2*c.Statement:
			return faultproxy.CutBefore
		}
		return faultproxy.Pass
	})
}
