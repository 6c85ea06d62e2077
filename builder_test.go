package streamhouse_test

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProducerBuilder_ReportsEveryFaultAtOnce(t *testing.T) {
	_, err := streamhouse.NewProducerBuilder().
		BatchSize(0).BatchBytes(0).BatchTimeout(0).RequestTimeout(0).DeliveryTimeout(0).MaxRetries(-2).
		RetryBackoff(0).BufferBytes(0).Idempotence(false).Name("no/slash").Partitioner(nil).Telemetry(nil).
		AgentGroup("").Build(t.Context())
	want := []string{"MetadataStore", "Telemetry", "BatchSize", "BatchBytes", "BatchTimeout", "RequestTimeout", "DeliveryTimeout", "MaxRetries", "RetryBackoff", "BufferBytes", "Partitioner", "Name"}
	got := configFields(err)
	for _, field := range want {
		if !got[field] {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d faults reported, want %d: %v", len(got), len(want), err)
	}
	var name *streamhouse.InvalidNameError
	if !errors.As(err, &name) {
		t.Errorf("no *InvalidNameError in %v", err)
	}
}

func TestProducerBuilder_RefusesNamesThatAreNotNames(t *testing.T) {
	for _, name := range []string{".", "..", strings.Repeat("x", 250), "/", "../x", "%2e%2e", "a\x00", "a\n", "\xff"} {
		_, err := streamhouse.NewProducerBuilder().Cluster(memory.NewCluster()).Name(name).AgentGroup(name).Build(t.Context())
		for _, what := range []string{"producer", "agent group"} {
			if !errors.Is(err, streamhouse.ErrInvalidName) || !strings.Contains(err.Error(), what+" name") {
				t.Errorf("%s name %q: %v", what, name, err)
			}
		}
	}
	_, err := streamhouse.NewProducerBuilder().Cluster(memory.NewCluster()).AgentGroup("").Build(t.Context())
	if !errors.Is(err, streamhouse.ErrInvalidName) {
		t.Errorf("an agent group without a name: %v", err)
	}
}

// configFields returns the fields of all ConfigErrors in err.
func configFields(err error) map[string]bool {
	fields := map[string]bool{}
	var walk func(error)
	walk = func(err error) {
		if c, ok := err.(*streamhouse.ConfigError); ok {
			fields[c.Field] = true
		}
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range many.Unwrap() {
				walk(e)
			}
		}
	}
	walk(err)
	return fields
}

func TestProducerBuilder_WithoutSegmentStoreNamesTheAgentGroup(t *testing.T) {
	cluster := memory.NewCluster()
	_, err := streamhouse.NewProducerBuilder().MetadataStore(cluster.Metadata()).AgentGroup("prod").Build(t.Context())
	var none *streamhouse.NoAgentsAvailableError
	if !errors.As(err, &none) || none.Group != "prod" {
		t.Errorf("error %v, want *NoAgentsAvailableError of group prod", err)
	}
}

func TestConsumerBuilder_ReportsEveryFaultAtOnce(t *testing.T) {
	_, err := streamhouse.NewConsumerBuilder().FetchBytes(0).FetchMaxWait(0).TopicRefresh(0).RetryBackoff(0).MaxPoll(0).Telemetry(nil).Build(t.Context())
	got := configFields(err)
	if len(got) != 8 || !got["MetadataStore"] || !got["SegmentStore"] {
		t.Errorf("faults %v, want 8, MetadataStore and SegmentStore among them", got)
	}
}

func TestConsumerBuilder_UnknownTopicFailsBuild(t *testing.T) {
	_, err := streamhouse.NewConsumerBuilder().Cluster(memory.NewCluster()).Assign("missing", streamhouse.FromStart()).Build(t.Context())
	var missing *streamhouse.TopicNotFoundError
	if !errors.As(err, &missing) || missing.Topic != "missing" {
		t.Errorf("error %v, want *TopicNotFoundError", err)
	}
}

func TestNamedProducer_FencesTheEarlierOne(t *testing.T) {
	cluster := newCluster(t.Context())
	build := func() *streamhouse.Producer {
		p, err := streamhouse.NewProducerBuilder().Cluster(cluster).Name("billing").Build(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := build()
	if _, err := first.Send(t.Context(), streamhouse.Record{Topic: "orders"}); err != nil {
		t.Fatal(err)
	}
	second := build()
	_, err := first.Send(t.Context(), streamhouse.Record{Topic: "orders"})
	if fate := streamhouse.FateOf(err); !errors.Is(err, streamhouse.ErrFenced) || fate.Stored != streamhouse.StoredNo || !fate.Fatal {
		t.Errorf("error %v with fate %+v, want ErrFenced: not stored, fatal", err, fate)
	}
	if _, err := first.Send(t.Context(), streamhouse.Record{Topic: "orders"}); !errors.Is(err, streamhouse.ErrFenced) {
		t.Errorf("later send: %v, want ErrFenced", err)
	}
	if _, err := second.Send(t.Context(), streamhouse.Record{Topic: "orders"}); err != nil {
		t.Errorf("the newer session: %v", err)
	}
	for _, p := range []*streamhouse.Producer{first, second} {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestExamples_UseEveryMethodOfTheLibrary(t *testing.T) {
	var examples strings.Builder
	for _, file := range []string{"example_test.go", "example_consumer_test.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		examples.Write(text)
	}
	for _, room := range []any{(*streamhouse.Producer)(nil), (*streamhouse.Consumer)(nil), (*streamhouse.Topics)(nil)} {
		for method := range reflect.TypeOf(room).Methods() {
			if !strings.Contains(examples.String(), "."+method.Name+"(") {
				t.Errorf("no example uses %T.%s", room, method.Name)
			}
		}
	}
}
