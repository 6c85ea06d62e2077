package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/streamhouse/streamhouse/adapters/localfs"
	"github.com/streamhouse/streamhouse/adapters/sqlite"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// The forms of URL that this package opens. The path is taken as it is written,
// relative to the working directory or absolute; after it may come parameters.
const (
	metadataForm = "sqlite:FILE"
	segmentsForm = "file:DIR"
)

// OpenMetadata opens the metadata store that a URL names:
//
//	sqlite:FILE[?unsafe_synchronous=NORMAL|OFF]
//
// The file, and folders above it that do not exist, are made. Everything else is a
// *domain.ConfigError that lists what there is.
func OpenMetadata(ctx context.Context, location string) (ports.MetadataStore, error) {
	l, err := parse("metadata store", metadataForm, location)
	if err != nil {
		return nil, err
	}
	mode := l.parameter("unsafe_synchronous", "NORMAL", "OFF")
	if err := l.faults(); err != nil {
		return nil, err
	}
	if err := localfs.MakeFolder(filepath.Dir(l.path)); err != nil {
		return nil, err
	}
	s, err := sqlite.Open(ctx, l.path, sqlite.Options{UnsafeSynchronous: mode})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// OpenSegments opens the segment store that a URL names:
//
//	file:DIR[?unsafe_no_fsync=true|false]
//
// DIR is the folder that holds, or will hold, segments/. It is made if it does not
// exist. Everything else is a *domain.ConfigError that lists what there is. If the store has a
// Close method the caller closes it.
func OpenSegments(_ context.Context, location string) (ports.SegmentStore, error) {
	l, err := parse("segment store", segmentsForm, location)
	if err != nil {
		return nil, err
	}
	unsafe := l.parameter("unsafe_no_fsync", "true", "false")
	if err := l.faults(); err != nil {
		return nil, err
	}
	s, err := localfs.Open(l.path, localfs.Options{UnsafeNoSync: unsafe == "true"})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// location is a URL taken apart.
type location struct {
	what       string
	path       string
	parameters url.Values
	known      []string
	errs       []error
}

// parse takes apart a URL of the form "scheme:PATH". Its errors quote the
// scheme only: what follows may hold a password.
func parse(what, form, given string) (*location, error) {
	want, _, _ := strings.Cut(form, ":")
	scheme, rest, found := strings.Cut(given, ":")
	if !found {
		return nil, &domain.ConfigError{Field: what, Value: "no URL", Want: form}
	}
	if scheme != want {
		return nil, &domain.ConfigError{Field: what, Value: fmt.Sprintf("%.20q", scheme+":..."), Want: form}
	}
	path, query, _ := strings.Cut(rest, "?")
	if strings.HasPrefix(path, "//") {
		path = strings.TrimPrefix(path, "//")
		if !strings.HasPrefix(path, "/") {
			return nil, &domain.ConfigError{Field: what, Value: "on another host", Want: form + ", with one slash or three before an absolute path"}
		}
	}
	if path == "" || strings.ContainsRune(path, 0) {
		return nil, &domain.ConfigError{Field: what, Value: "without a path", Want: form}
	}
	parameters, err := url.ParseQuery(query)
	if err != nil {
		return nil, &domain.ConfigError{Field: what, Value: fmt.Sprintf("with the parameters %.80q", query), Want: form + "?name=value&name=value"}
	}
	return &location{what: what, path: path, parameters: parameters}, nil
}

// parameter returns the value of a parameter, "" if it is not given.
func (l *location) parameter(name string, values ...string) string {
	l.known = append(l.known, name)
	given := l.parameters[name]
	if len(given) == 0 {
		return ""
	}
	if len(given) > 1 || !slices.Contains(values, given[0]) {
		l.errs = append(l.errs, &domain.ConfigError{
			Field: l.what + " parameter " + name, Value: fmt.Sprintf("%.80q", strings.Join(given, " and ")), Want: strings.Join(values, " or "),
		})
	}
	return given[0]
}

// faults reports all that is wrong with the parameters, the unknown ones
// included.
func (l *location) faults() error {
	for _, name := range slices.Sorted(maps.Keys(l.parameters)) {
		if !slices.Contains(l.known, name) {
			l.errs = append(l.errs, &domain.ConfigError{
				Field: l.what + " parameter", Value: fmt.Sprintf("%.80q", name), Want: strings.Join(l.known, ", "),
			})
		}
	}
	return errors.Join(l.errs...)
}
