// Package storecheck finds out whether a segment store, such as a user's own
// bucket, keeps what ports.SegmentStore promises and the safety of records rests on.
//
// It works in a folder of its own with a random name, and removes what it has made. It is no
// proof: a store that breaks its promises once in a million times passes.
package storecheck

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// Result is the outcome of one check.
type Result struct {
	// Name says what must hold, as in "a put of a taken key is refused".
	Name string
	OK   bool
	// Detail is what was done, or what was seen instead.
	Detail string
	// Fix is what to do about it. Empty if OK.
	Fix string
}

// Report is the outcome of all checks that were made, in their order.
type Report struct {
	// Folder is where the objects of the checks were: keys that begin with it.
	Folder  string
	Results []Result
}

// OK reports whether every check passed.
func (r Report) OK() bool {
	for _, result := range r.Results {
		if !result.OK {
			return false
		}
	}
	return len(r.Results) > 0
}

// Config says how much is tried. Start from DefaultConfig.
type Config struct {
	// Writers is how many Puts race for one key, Races for how many keys.
	Writers int
	Races   int
	// ObjectBytes is the size of the largest object.
	ObjectBytes int
	// Objects is how many objects are listed.
	Objects int
}

// DefaultConfig takes a second or two against a server nearby: about 120 requests
// and 1 MiB.
func DefaultConfig() Config {
	return Config{Writers: 8, Races: 5, ObjectBytes: 1 << 20, Objects: 12}
}

// Validate reports every field that cannot be used, as *domain.ConfigErrors
// joined.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct {
		name               string
		value, least, most int
	}{
		{"Writers", c.Writers, 2, 256},
		{"Races", c.Races, 1, 10_000},
		{"ObjectBytes", c.ObjectBytes, 64, 1 << 30},
		{"Objects", c.Objects, 3, 10_000},
	} {
		if f.value < f.least || f.value > f.most {
			errs = append(errs, &domain.ConfigError{
				Field: f.name, Value: strconv.Itoa(f.value), Want: fmt.Sprintf("%d to %d", f.least, f.most),
			})
		}
	}
	return errors.Join(errs...)
}

// check is one promise and how it is tried.
type check struct {
	name string
	fix  string
	try  func(*run, context.Context) (detail string, err error)
}

const fixOfConditions = "do not use this store: two writers could destroy each other's segments; it must create objects conditionally (If-None-Match)"

var checks = []check{
	{"a put stores the object, and a read gives it back", "see what the store says; without this nothing else can be tried", (*run).put},
	{"a put of a taken key is refused and changes nothing", fixOfConditions, (*run).taken},
	{"exactly one of racing puts wins, and its bytes stay", fixOfConditions, (*run).race},
	{"stat gives the size, the checksum and the time", "use a store that keeps checksums, and set the clocks of both machines by NTP", (*run).stat},
	{"a ranged read gives the bytes of the range", "use a store that honours ranges", (*run).ranges},
	{"a range past the end is an error", "use a store that honours ranges", (*run).pastEnd},
	{"a read up to the end gives what there is", "use a store that answers a range past the end with what it has of it, as HTTP says", (*run).upToEnd},
	{"a missing object is said to be missing", "let the credentials list the store: without that some say that access is denied instead", (*run).missing},
	{"a list shows every object, in the order of keys, in pages", "use a store with consistent listings in key order", (*run).list},
	{"a delete removes an object, and one that is missing is no error", "let the credentials delete objects", (*run).remove},
}

// run is one run of the checks.
type run struct {
	store  ports.SegmentStore
	cfg    Config
	folder string
	made   []string // keys that may hold an object
}

// Run makes all checks, those that remain after a failure too, unless nothing can
// be stored or ctx ends. It takes a cfg that passes Validate.
func Run(ctx context.Context, store ports.SegmentStore, cfg Config) Report {
	var id [8]byte
	_, _ = rand.Read(id[:]) // it does not fail
	r := &run{store: store, cfg: cfg, folder: "check/" + hex.EncodeToString(id[:]) + "/"}
	report := Report{Folder: r.folder}
	for i, c := range checks {
		detail, err := c.try(r, ctx)
		result := Result{Name: c.name, OK: err == nil, Detail: detail}
		if err != nil {
			result.Detail, result.Fix = err.Error(), c.fix
		}
		if ctx.Err() != nil {
			result.Fix = "give it more time"
		}
		report.Results = append(report.Results, result)
		if err != nil && (i == 0 || ctx.Err() != nil) {
			break
		}
	}
	report.Results = append(report.Results, r.cleanUp(ctx))
	return report
}

// cleanTime bounds the removal of what was made, after ctx ended too.
const cleanTime = 30 * time.Second

func (r *run) cleanUp(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	var left []string
	var last error
	for _, key := range r.made {
		if err := again(ctx, func() error { return r.store.Delete(ctx, key) }); err != nil {
			left, last = append(left, key), err
		}
	}
	result := Result{Name: "what was made is removed", OK: true, Detail: fmt.Sprintf("%d objects", len(r.made))}
	if last != nil {
		result.OK = false
		result.Detail = fmt.Sprintf("%d of %d objects remain: %v", len(left), len(r.made), last)
		result.Fix = "remove what is under " + strings.TrimSuffix(r.folder, "/") + " by hand, and let the credentials delete objects"
	}
	return result
}

// attempts and firstPause say how patiently a call is repeated whose failure may
// pass; each pause is twice as long as the one before.
const (
	attempts   = 4
	firstPause = 100 * time.Millisecond
)

// again makes a call until it succeeds, fails for good, or has been made often
// enough.
func again(ctx context.Context, call func() error) error {
	for n := 1; ; n++ {
		err := call()
		if err == nil || n == attempts || !passes(err) || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(firstPause << (n - 1))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// passes reports whether the same call may succeed.
func passes(err error) bool {
	kind := ports.KindOf(err)
	return kind == ports.Transient || kind == ports.Ambiguous
}
