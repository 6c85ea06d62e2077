package wiring

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/fx"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/local"
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// stores are the two that everything stands on.
type stores struct {
	fx.Out
	Metadata ports.MetadataStore
	Segments ports.SegmentStore
}

// openStores opens the folder, or each store by its URL, the one without a URL
// at its place in the folder.
func (b *builder) openStores() (stores, error) {
	if b.cfg.Metadata == "" && b.cfg.Segments == "" {
		if err := b.checkExisting(b.cfg.Data); err != nil {
			return stores{}, failed(opening("data folder", b.cfg.Data), err)
		}
		cluster, err := local.Open(b.ctx, b.cfg.Data, local.WithoutJanitor())
		if err != nil {
			return stores{}, failed(opening("data folder", b.cfg.Data), err)
		}
		b.started("data folder "+b.cfg.Data, func(context.Context) error { return cluster.Close() })
		return stores{Metadata: cluster.Metadata(), Segments: cluster.Segments()}, nil
	}
	metadataURL, segmentsURL := b.storeURLs()
	metadata, err := b.openMetadata(metadataURL)
	if err != nil {
		return stores{}, failed(opening("metadata store", shown(metadataURL)), err)
	}
	b.started("metadata store "+shown(metadataURL), func(context.Context) error { return metadata.Close() })
	segments, err := b.openSegments(segmentsURL)
	if err != nil {
		return stores{}, failed(opening("segment store", shown(segmentsURL)), err)
	}
	if closer, ok := segments.(io.Closer); ok {
		b.started("segment store "+shown(segmentsURL), func(context.Context) error { return closer.Close() })
	}
	return stores{Metadata: metadata, Segments: segments}, nil
}

func newTopics(t ports.Topics) *topics.Topics { return topics.New(t) }

func (b *builder) newTransport(m ports.MetadataStore, s ports.SegmentStore) (ports.Transport, error) {
	w, err := direct.NewWriter(m, s, b.cfg.Telemetry, b.cfg.Writer)
	if err != nil {
		return nil, failed("start direct writer", err)
	}
	b.started("direct writer", w.Close)
	return w, nil
}

func (b *builder) newProducer(topics ports.Topics, producers ports.Producers, t ports.Transport) (*producer.Producer, error) {
	cfg := b.cfg.Producer
	if b.cfg.Compress {
		cfg.Codec = codec.NewLZ4()
	}
	p, err := producer.New(b.ctx, producer.Ports{Topics: topics, Producers: producers, Transport: t, Telemetry: b.cfg.Telemetry}, cfg)
	if err != nil {
		return nil, failed("start producer", err)
	}
	b.started("producer", p.Close)
	return p, nil
}

// knownCodecs are those that a batch may be compressed with.
func knownCodecs() []batch.Codec { return []batch.Codec{codec.NewLZ4()} }

func (b *builder) newFetcher(m ports.MetadataStore, s ports.SegmentStore) ports.Fetcher {
	return direct.NewReader(m, s, b.cfg.Telemetry, direct.DefaultReaderConfig(knownCodecs()...))
}

func (b *builder) newConsumer(t ports.Topics, f ports.Fetcher) (*consumer.Consumer, error) {
	cfg := b.cfg.Consumer
	cfg.Codecs = knownCodecs()
	c, err := consumer.New(consumer.Ports{Topics: t, Fetcher: f, Telemetry: b.cfg.Telemetry}, cfg)
	if err != nil {
		return nil, failed("start consumer", err)
	}
	b.started("consumer", func(context.Context) error { return c.Close() })
	return c, nil
}

func (b *builder) newJanitor(m ports.MetadataStore, s ports.SegmentStore) (*janitor.Janitor, error) {
	if err := b.cfg.Janitor.Validate(); err != nil {
		return nil, failed("start janitor", err)
	}
	return janitor.New(m, s, b.cfg.Telemetry, b.cfg.Janitor), nil
}

func (b *builder) openMetadata(location string) (ports.MetadataStore, error) {
	if err := b.checkExisting(localPath(location, "sqlite")); err != nil {
		return nil, err
	}
	return openMetadata(b.ctx, location)
}

func (b *builder) openSegments(location string) (ports.SegmentStore, error) {
	if err := b.checkExisting(localPath(location, "file")); err != nil {
		return nil, err
	}
	return openSegments(b.ctx, location)
}

// checkExisting refuses a file or folder that does not exist, if that is asked
// for. The empty path is no store on this machine's disk.
func (b *builder) checkExisting(path string) error {
	if !b.cfg.Existing || path == "" {
		return nil
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return errors.New("it does not exist; topic create or produce --create would make it")
	}
	return nil
}

// localPath returns the path of a store URL of the scheme, and nothing of
// another.
func localPath(location, scheme string) string {
	path, ok := strings.CutPrefix(location, scheme+":")
	if !ok {
		return ""
	}
	path, _, _ = strings.Cut(path, "?")
	return path
}

// storeURLs returns the URLs of both stores; one that was not given is where it
// is in a data folder.
func (b *builder) storeURLs() (metadata, segments string) {
	return cmp.Or(b.cfg.Metadata, "sqlite:"+filepath.Join(b.cfg.Data, "metadata.db")),
		cmp.Or(b.cfg.Segments, "file:"+b.cfg.Data)
}
