package wiring

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
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
