package wiring

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func inFolder(t *testing.T) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Data = filepath.Join(t.TempDir(), "data")
	return cfg
}

func TestOpen_MakesWhatIsAskedForAndCloseStoresWhatWasAccepted(t *testing.T) {
	cfg := inFolder(t)
	var p *producer.Producer
	var tp *topics.Topics
	system, err := Open(t.Context(), cfg, &p, &tp)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tp.Create(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	pending := p.SendAsync(t.Context(), domain.Record{Topic: "orders", Value: []byte("x")}, nil)
	if err := system.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := pending.Wait(t.Context()); err != nil {
		t.Errorf("the record accepted before Close: %v", err)
	}
	if _, err := p.Send(t.Context(), domain.Record{Topic: "orders"}); !errors.Is(err, domain.ErrClosed) {
		t.Errorf("a send after Close: %v", err)
	}

	var c *consumer.Consumer
	var store ports.MetadataStore
	system, err = Open(t.Context(), cfg, &c, &store)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Assign(t.Context(), "orders", consumer.Start()); err != nil {
		t.Fatal(err)
	}
	if messages, err := c.Poll(t.Context(), 10); err != nil || len(messages) != 1 || string(messages[0].Value) != "x" {
		t.Errorf("polled %v, %v", messages, err)
	}
	if err := system.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.ListTopics(t.Context()); !errors.Is(err, domain.ErrClosed) {
		t.Errorf("the store after Close: %v", err)
	}
}

func TestOpen_SaysWhichPartCouldNotBeStarted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		change func(*Config)
		part   string
	}{
		{func(c *Config) { c.Data = file }, "open data folder " + file},
		{func(c *Config) { c.Metadata = "sqlite:" + file }, "open metadata store sqlite:" + file},
		{func(c *Config) { c.Segments = "file:" + file }, "open segment store file:" + file},
		{func(c *Config) { c.Metadata = "oracle:x" }, "open metadata store oracle:x"},
		{func(c *Config) { c.Segments = "ftp:x" }, "open segment store ftp:x"},
		{func(c *Config) { c.Producer.BatchSize = 0 }, "start producer"},
		{func(c *Config) { c.Writer.MaxUploads = 0 }, "start direct writer"},
		{func(c *Config) { c.Consumer.FetchBytes = 0 }, "start consumer"},
	} {
		cfg := inFolder(t)
		test.change(&cfg)
		var p *producer.Producer
		var c *consumer.Consumer
		_, err := Open(t.Context(), cfg, &p, &c)
		var part *PartError
		if !errors.As(err, &part) || part.Part != test.part {
			t.Errorf("want %q, got %v", test.part, err)
			continue
		}
		if text := err.Error(); strings.Contains(text, "fx") || strings.Contains(text, "dig") || strings.Contains(text, "function") || strings.Contains(text, "\n") {
			t.Errorf("the error talks of the wiring: %s", text)
		}
	}
}

func TestOpen_OfWhatMustExistMakesNoStore(t *testing.T) {
	for _, change := range []func(c *Config, dir string){
		func(*Config, string) {},
		func(c *Config, dir string) { c.Metadata = "sqlite:" + dir + "/m.db" },
		func(c *Config, dir string) { c.Segments = "file:" + dir + "/segments?unsafe_no_fsync=true" },
		func(c *Config, dir string) { c.Metadata, c.Segments = "sqlite:"+dir+"/m.db", "file:"+dir },
	} {
		cfg := inFolder(t)
		change(&cfg, filepath.Join(filepath.Dir(cfg.Data), "other"))
		cfg.Existing = true
		var tp *topics.Topics
		if _, err := Open(t.Context(), cfg, &tp); err == nil || !strings.Contains(err.Error(), "it does not exist") {
			t.Errorf("metadata %q, segments %q: %v", cfg.Metadata, cfg.Segments, err)
		}
		if left, err := os.ReadDir(filepath.Dir(cfg.Data)); err != nil || len(left) > 0 {
			t.Errorf("metadata %q, segments %q: left %v, %v", cfg.Metadata, cfg.Segments, left, err)
		}
		cfg.Existing = false
		for range 2 {
			system, err := Open(t.Context(), cfg, &tp)
			if err != nil {
				t.Fatal(err)
			}
			if err := system.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			cfg.Existing = true
		}
	}
}

func TestOpen_ClosesWhatWasOpenWhenALaterPartFails(t *testing.T) {
	cfg := inFolder(t)
	cfg.Consumer.FetchBytes = -1
	var store ports.MetadataStore
	var c *consumer.Consumer
	if _, err := Open(t.Context(), cfg, &store, &c); err == nil {
		t.Fatal("a consumer without fetch bytes")
	}
	if store != nil {
		if _, err := store.ListTopics(t.Context()); !errors.Is(err, domain.ErrClosed) {
			t.Errorf("the metadata store is open: %v", err)
		}
	}
	// goleak, at the end, would find the store's goroutines.
}

func TestOpen_ObeysTheEndOfItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var p *producer.Producer
	if system, err := Open(ctx, inFolder(t), &p); err == nil {
		t.Error("opened in spite of it")
		if err := system.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestShown_HidesSecrets(t *testing.T) {
	for in, want := range map[string]string{
		"sqlite:data/m.db":                           "sqlite:data/m.db",
		"sqlite:/x?unsafe_synchronous=OFF":           "sqlite:/x",
		"postgres://user:p@ss@host:5432/db?sslkey=x": "postgres://host:5432/db",
		"sqlite:a@b":                                 "sqlite:a@b",
	} {
		if got := shown(in); got != want {
			t.Errorf("%s is shown as %s", in, got)
		}
	}
}

func TestStop_GoesOnAfterAFailureNewestFirst(t *testing.T) {
	var order []string
	b := &builder{}
	for _, name := range []string{"store", "transport", "producer"} {
		b.started(name, func(context.Context) error {
			order = append(order, name)
			if name == "transport" {
				return errors.New("stuck")
			}
			return nil
		})
	}
	err := b.stop(t.Context())
	if got := strings.Join(order, " "); got != "producer transport store" {
		t.Errorf("stopped in the order %s", got)
	}
	if err == nil || err.Error() != "close transport: stuck" {
		t.Errorf("error is %v", err)
	}
}
