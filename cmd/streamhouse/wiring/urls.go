package wiring

import (
	"context"
	"fmt"
	"strings"

	"github.com/streamhouse/streamhouse/adapters/local"
	"github.com/streamhouse/streamhouse/adapters/postgres"
	"github.com/streamhouse/streamhouse/adapters/s3"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// openMetadata opens the metadata store that a URL names by its scheme.
func openMetadata(ctx context.Context, location string) (ports.MetadataStore, error) {
	switch schemeOf(location) {
	case "sqlite":
		return local.OpenMetadata(ctx, location)
	case "postgres", "postgresql":
		s, err := postgres.Open(ctx, location, postgres.Options{})
		if err != nil {
			return nil, err // not a nil *postgres.Store in an interface
		}
		return s, nil
	}
	return nil, noScheme("metadata store", location, "sqlite:FILE or postgres://USER@HOST:PORT/DATABASE")
}

// openSegments opens the segment store that a URL names by its scheme.
func openSegments(ctx context.Context, location string) (ports.SegmentStore, error) {
	switch schemeOf(location) {
	case "file":
		return local.OpenSegments(ctx, location)
	case "s3":
		cfg, err := s3.ParseURL(location)
		if err != nil {
			return nil, err
		}
		s, err := s3.Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	return nil, noScheme("segment store", location, "file:DIR or s3://BUCKET/PREFIX")
}

func schemeOf(location string) string {
	scheme, _, _ := strings.Cut(location, ":")
	return scheme
}

// noScheme quotes the scheme only: what follows may hold a password.
func noScheme(what, location, want string) error {
	value := "no URL"
	if strings.Contains(location, ":") {
		value = fmt.Sprintf("%.20q", schemeOf(location)+":...")
	}
	return &domain.ConfigError{Field: what, Value: value, Want: want}
}
