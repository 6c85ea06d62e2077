package wiring

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/streamhouse/streamhouse/adapters/postgres"
	"github.com/streamhouse/streamhouse/domain"
)

// scratchName begins the names of what Scratch makes beside the real stores.
const scratchName = "streamhouse_scratch_"

// Scratch returns the configuration of stores of the same kind in the same
// places that hold nothing, and what discards them after they were closed: a folder in dir, another
// schema of the same database, another prefix of the same bucket.
func (c Config) Scratch(dir string) (scratch Config, discard func(context.Context) error, err error) {
	var random [8]byte
	rand.Read(random[:])
	name := scratchName + hex.EncodeToString(random[:])
	scratch = DefaultConfig()
	scratch.Data = dir
	var discards []func(context.Context) error
	if scheme := schemeOf(c.Metadata); scheme == "postgres" || scheme == "postgresql" {
		if scratch.Metadata, err = withParameter(c.Metadata, "schema", name); err != nil {
			return scratch, nil, err
		}
		discards = append(discards, func(ctx context.Context) error { return postgres.DropSchema(ctx, scratch.Metadata) })
	}
	if schemeOf(c.Segments) == "s3" {
		scratch.Segments = withPrefix(c.Segments, strings.ReplaceAll(name, "_", "-"))
		discards = append(discards, func(ctx context.Context) error { return emptyStore(ctx, scratch.Segments) })
	}
	return scratch, func(ctx context.Context) error {
		var errs []error
		for _, d := range discards {
			errs = append(errs, d(ctx))
		}
		return errors.Join(errs...)
	}, nil
}

// withParameter sets a parameter of a URL.
func withParameter(location, name, value string) (string, error) {
	u, err := url.Parse(location)
	if err != nil {
		// What url.Parse says quotes the whole, password and all.
		return "", &domain.ConfigError{Field: "metadata store", Value: "a URL that cannot be read", Want: "postgres://USER@HOST:PORT/DATABASE"}
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// withPrefix appends to the path of a URL.
func withPrefix(location, prefix string) string {
	path, query, found := strings.Cut(location, "?")
	path = strings.TrimSuffix(path, "/") + "/" + prefix
	if found {
		path += "?" + query
	}
	return path
}

// emptyStore deletes every object of a store.
func emptyStore(ctx context.Context, location string) (err error) {
	s, err := openSegments(ctx, location)
	if err != nil {
		return err
	}
	if closer, ok := s.(io.Closer); ok {
		defer func() { err = errors.Join(err, closer.Close()) }()
	}
	for {
		page, err := s.List(ctx, "", 1000)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, o := range page {
			if err := s.Delete(ctx, o.Key); err != nil {
				return fmt.Errorf("discard scratch objects: %w", err)
			}
		}
	}
}
