//go:build !unix

package bench

import "time"

// cpuTime and maxRSS are not known here and given as 0.
func cpuTime() time.Duration { return 0 }

func maxRSS() int64 { return 0 }
