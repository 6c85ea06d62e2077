package wiring

import (
	"context"
	"errors"
	"io"

	"github.com/streamhouse/streamhouse/adapters/s3"
	"github.com/streamhouse/streamhouse/app/storecheck"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// CheckStore opens the segment store of a URL and tries what it promises. A
// store that cannot be used at all is a failed check, not an error; an error is a URL that
// cannot be understood.
func CheckStore(ctx context.Context, location string) (report storecheck.Report, err error) {
	store, err := openUnprobed(ctx, location)
	if err != nil {
		if errors.Is(err, domain.ErrConfig) {
			return report, failed(opening("segment store", shown(location)), err)
		}
		return unusable("the store can be opened", err), nil
	}
	if closer, ok := store.(io.Closer); ok {
		defer func() { err = errors.Join(err, closer.Close()) }()
	}
	if prober, ok := store.(interface{ Probe(context.Context) error }); ok {
		if err := prober.Probe(ctx); err != nil {
			return unusable("the store can be reached and refuses to replace an object", err), nil
		}
	}
	return storecheck.Run(ctx, store, storecheck.DefaultConfig()), nil
}

// openUnprobed opens a store without the probe at its opening, which would end
// the check at its first finding.
func openUnprobed(ctx context.Context, location string) (ports.SegmentStore, error) {
	if schemeOf(location) != "s3" {
		return openSegments(ctx, location)
	}
	cfg, err := s3.ParseURL(location)
	if err != nil {
		return nil, err
	}
	cfg.UnsafeSkipConditionalPutProbe = true
	s, err := s3.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func unusable(name string, err error) storecheck.Report {
	return storecheck.Report{Results: []storecheck.Result{{
		Name: name, Detail: err.Error(), Fix: "Mend this first: nothing else was tried.",
	}}}
}
