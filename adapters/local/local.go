// Package local opens the stores that need nothing but a disk: both in one
// folder, or each by its URL.
//
// The folder of a store holds metadata.db, its SQLite companions, and
// segments/. Several processes may have it open at the same time.
//
// An open folder cleans up after itself: a janitor applies retention, deletes garbage and
// compacts small segments every few minutes. It is the one adapter that starts a use case, since
// whoever embeds the log should not have to think of it.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/streamhouse/streamhouse/adapters/localfs"
	"github.com/streamhouse/streamhouse/adapters/sqlite"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/ports"
)

// What a folder holds.
const (
	metadataFile   = "metadata.db"
	segmentsFolder = "segments"
)

// Store is the embedded log: metadata and segments in one folder.
type Store struct {
	metadata *sqlite.Store
	segments *localfs.Store

	// The janitor's goroutine: stop ends it, and it closes done. Both are nil
	// without one.
	stop context.CancelFunc
	done chan struct{}
}

var _ ports.Cluster = (*Store)(nil)

// Option changes how Open opens.
type Option func(*options)

type options struct {
	metadata sqlite.Options
	segments localfs.Options
	// janitor is how the janitor works, nil for none.
	janitor   *janitor.Config
	telemetry ports.Telemetry
}

// UnsafeSynchronous sets SQLite's synchronous mode to "NORMAL" or "OFF": a
// power failure then takes acknowledged records with it. Default: full sync.
func UnsafeSynchronous(mode string) Option {
	return func(o *options) { o.metadata.UnsafeSynchronous = mode }
}

// UnsafeNoFsync leaves out every sync of segments: a power failure then takes
// acknowledged records with it. Default: all are synced.
func UnsafeNoFsync() Option {
	return func(o *options) { o.segments.UnsafeNoSync = true }
}

// WithoutJanitor leaves upkeep to others, such as `streamhouse janitor`. Default:
// the store runs a janitor while it is open.
func WithoutJanitor() Option {
	return func(o *options) { o.janitor = nil }
}

// WithJanitor runs the janitor with cfg in the place of janitor.DefaultConfig.
func WithJanitor(cfg janitor.Config) Option {
	return func(o *options) { o.janitor = &cfg }
}

// WithTelemetry tells t what the janitor does. Default: nobody.
func WithTelemetry(t ports.Telemetry) Option {
	return func(o *options) { o.telemetry = t }
}

// Open opens the store in the folder dir, and makes both if they do not exist:
// the folder readable by its owner only. It refuses a folder whose metadata file is gone while
// its segments are there, since a new one would give their offsets again.
//
// domain.ErrMetadata, domain.ErrStorage: the folder cannot be used; the error says
// why. *domain.ConfigError: an option has no such value.
func Open(ctx context.Context, dir string, opts ...Option) (*Store, error) {
	defaults := janitor.DefaultConfig()
	o := options{janitor: &defaults, telemetry: ports.NoTelemetry{}}
	for _, option := range opts {
		option(&o)
	}
	if o.janitor != nil {
		if err := o.janitor.Validate(); err != nil {
			return nil, err
		}
	}
	segments, err := localfs.Open(dir, o.segments)
	if err != nil {
		return nil, err
	}
	metadata, err := openMetadata(ctx, dir, segments, o.metadata)
	if err != nil {
		return nil, errors.Join(err, segments.Close())
	}
	s := &Store{metadata: metadata, segments: segments}
	if o.janitor != nil {
		s.startJanitor(janitor.New(metadata, segments, o.telemetry, *o.janitor))
	}
	return s, nil
}

func (s *Store) startJanitor(j *janitor.Janitor) {
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.done = stop, make(chan struct{})
	go func() {
		defer close(s.done)
		j.Run(ctx)
	}()
}

func openMetadata(ctx context.Context, dir string, segments *localfs.Store, o sqlite.Options) (*sqlite.Store, error) {
	if err := refuseFolder(ctx, dir, segments); err != nil {
		return nil, err
	}
	return sqlite.Open(ctx, filepath.Join(dir, metadataFile), o)
}

// refuseFolder refuses a folder that holds what Open would not expect.
func refuseFolder(ctx context.Context, dir string, segments *localfs.Store) error {
	inPlace := filepath.Join(dir, segmentsFolder)
	if info, err := os.Stat(inPlace); err == nil && !info.IsDir() {
		return ports.StorageError("open folder "+dir, ports.Definite, fmt.Errorf("%s is not a folder: move it away", inPlace))
	}
	if exists(filepath.Join(dir, metadataFile)) {
		return nil
	}
	found, err := segments.List(ctx, segmentsFolder+"/", 1)
	// Asked again: another process may have begun the folder meanwhile.
	if err != nil || len(found) == 0 || exists(filepath.Join(dir, metadataFile)) {
		return err
	}
	// What a user keeps beside segments/ may have names that come after it.
	if !strings.HasPrefix(found[0].Key, segmentsFolder+"/") {
		return nil
	}
	return ports.MetadataError("open folder "+dir, ports.Definite,
		fmt.Errorf("%s is missing while there are segments, such as %s: restore it from a backup, or give another folder", metadataFile, found[0].Key))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Metadata implements ports.Cluster.
func (s *Store) Metadata() ports.MetadataStore { return s.metadata }

// Segments implements ports.Cluster.
func (s *Store) Segments() ports.SegmentStore { return s.segments }

// Close ends the janitor and closes both stores. It may be called twice.
func (s *Store) Close() error {
	if s.stop != nil {
		s.stop()
		<-s.done
	}
	return errors.Join(s.metadata.Close(), s.segments.Close())
}
