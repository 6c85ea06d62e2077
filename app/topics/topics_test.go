package topics_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

func open(t *testing.T) (*topics.Topics, *memory.Metadata) {
	t.Helper()
	meta := memory.NewMetadata(memory.MetadataOptions{Seed: 1})
	t.Cleanup(func() {
		if err := meta.Close(); err != nil {
			t.Error(err)
		}
	})
	return topics.New(meta), meta
}

func create(t *testing.T, admin *topics.Topics, name string, partitions int32) domain.Topic {
	t.Helper()
	topic, err := admin.Create(t.Context(), domain.TopicSpec{Name: name, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

func TestCreate_ReturnsTheTopicThatListAndDescribeShow(t *testing.T) {
	admin, _ := open(t)
	keep := domain.Retention{Age: time.Hour, Bytes: 1 << 30}
	created, err := admin.Create(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 3, Retention: keep})
	if err != nil {
		t.Fatal(err)
	}
	if created.Name != "orders" || created.Partitions != 3 || created.Retention != keep || domain.UUID(created.ID).IsZero() {
		t.Fatalf("created %+v", created)
	}
	create(t, admin, "audit", 1)

	list, err := admin.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Name != "audit" || list[1].ID != created.ID {
		t.Fatalf("listed %+v", list)
	}
	d, err := admin.Describe(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	if d.ID != created.ID || len(d.States) != 3 || d.Retention != keep {
		t.Fatalf("described %+v", d)
	}
	for i, s := range d.States {
		if s != (domain.PartitionState{Partition: domain.PartitionID(i)}) {
			t.Fatalf("partition %d is %+v, want empty", i, s)
		}
	}
}

func TestCreate_RefusesATakenNameAndLeavesTheTopicAsItIs(t *testing.T) {
	admin, _ := open(t)
	create(t, admin, "orders", 3)
	_, err := admin.Create(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 5})
	var exists *domain.TopicExistsError
	if !errors.As(err, &exists) || exists.Topic != "orders" {
		t.Fatalf("got %v, want *TopicExistsError for orders", err)
	}
	if d, err := admin.Describe(t.Context(), "orders"); err != nil || d.Partitions != 3 {
		t.Fatalf("described %+v, %v", d, err)
	}
}

func TestInvalidInput_IsRefusedWithoutAskingTheStore(t *testing.T) {
	admin := topics.New(nil) // A call that reaches the store panics.
	for _, name := range []string{"", ".", "..", "a/b", "../x", "%2e%2e", "a\x00", "a\nb", "\xff", string(make([]byte, 250))} {
		calls := map[string]error{
			"create": second(admin.Create(t.Context(), domain.TopicSpec{Name: name, Partitions: 1})),
			"widen":  second(admin.Widen(t.Context(), name, 2)),
			"retain": second(admin.SetRetention(t.Context(), name, domain.Retention{})),
			"delete": admin.Delete(t.Context(), name),
		}
		_, calls["describe"] = admin.Describe(t.Context(), name)
		for call, err := range calls {
			if !errors.Is(err, domain.ErrInvalidName) {
				t.Errorf("%s %q: got %v, want ErrInvalidName", call, name, err)
			}
		}
	}
	for _, n := range []int32{-1, 0, domain.MaxPartitions + 1} {
		if err := second(admin.Create(t.Context(), domain.TopicSpec{Name: "a", Partitions: n})); !errors.Is(err, domain.ErrConfig) {
			t.Errorf("create with %d partitions: got %v", n, err)
		}
		if err := second(admin.Widen(t.Context(), "a", n)); !errors.Is(err, domain.ErrConfig) {
			t.Errorf("widen to %d partitions: got %v", n, err)
		}
	}
	if err := second(admin.SetRetention(t.Context(), "a", domain.Retention{Age: -1})); !errors.Is(err, domain.ErrConfig) {
		t.Errorf("negative retention: got %v", err)
	}
}

func second(_ domain.Topic, err error) error { return err }

func TestEveryCallByName_NamesTheTopicThatIsNotThere(t *testing.T) {
	admin, _ := open(t)
	_, describe := admin.Describe(t.Context(), "ghost")
	for call, err := range map[string]error{
		"describe": describe,
		"widen":    second(admin.Widen(t.Context(), "ghost", 2)),
		"retain":   second(admin.SetRetention(t.Context(), "ghost", domain.Retention{})),
		"delete":   admin.Delete(t.Context(), "ghost"),
	} {
		wantNotFound(t, call, err, "ghost")
	}
}

func wantNotFound(t *testing.T, call string, err error, name string) {
	t.Helper()
	var missing *domain.TopicNotFoundError
	if !errors.As(err, &missing) || missing.Topic != name {
		t.Errorf("%s: got %v, want *TopicNotFoundError for %s", call, err, name)
	}
}

func TestDelete_FreesTheNameForATopicWithAnotherID(t *testing.T) {
	admin, _ := open(t)
	old := create(t, admin, "orders", 3)
	if err := admin.Delete(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	_, err := admin.Describe(t.Context(), "orders")
	wantNotFound(t, "describe", err, "orders")
	if again := create(t, admin, "orders", 1); again.ID == old.ID {
		t.Fatal("the new topic has the old one's id")
	}
}

func TestWiden_RaisesTheCountAndNeverLowersIt(t *testing.T) {
	admin, _ := open(t)
	create(t, admin, "orders", 3)
	for _, n := range []int32{3, 5} {
		if topic, err := admin.Widen(t.Context(), "orders", n); err != nil || topic.Partitions != n {
			t.Fatalf("widen to %d: %+v, %v", n, topic, err)
		}
	}
	if err := second(admin.Widen(t.Context(), "orders", 4)); !errors.Is(err, domain.ErrConfig) {
		t.Fatalf("narrowed: %v", err)
	}
	if d, err := admin.Describe(t.Context(), "orders"); err != nil || len(d.States) != 5 {
		t.Fatalf("described %+v, %v", d, err)
	}
}

func TestSetRetention_ReplacesBothBounds(t *testing.T) {
	admin, _ := open(t)
	create(t, admin, "orders", 3)
	for _, keep := range []domain.Retention{{Age: time.Minute, Bytes: 5}, {Bytes: 7}, {}} {
		if topic, err := admin.SetRetention(t.Context(), "orders", keep); err != nil || topic.Retention != keep {
			t.Fatalf("set %+v: %+v, %v", keep, topic, err)
		}
		if d, err := admin.Describe(t.Context(), "orders"); err != nil || d.Retention != keep {
			t.Fatalf("described %+v, %v", d, err)
		}
	}
}

// racing deletes the topic, or widens it, between the look-up of its name and
// the call about its id.
type racing struct {
	ports.Topics
	between func(context.Context, domain.Topic) error
}

func (r racing) Topic(ctx context.Context, name string) (domain.Topic, error) {
	topic, err := r.Topics.Topic(ctx, name)
	if err != nil {
		return topic, err
	}
	return topic, r.between(ctx, topic)
}

func TestATopicDeletedMeanwhile_IsNotFoundByItsName(t *testing.T) {
	plain, meta := open(t)
	admin := topics.New(racing{meta, func(ctx context.Context, topic domain.Topic) error {
		return meta.DeleteTopic(ctx, topic.ID)
	}})
	calls := map[string]func() error{
		"describe": func() error { _, err := admin.Describe(t.Context(), "orders"); return err },
		"widen":    func() error { return second(admin.Widen(t.Context(), "orders", 9)) },
		"retain":   func() error { return second(admin.SetRetention(t.Context(), "orders", domain.Retention{})) },
		"delete":   func() error { return admin.Delete(t.Context(), "orders") },
	}
	for call, run := range calls {
		create(t, plain, "orders", 1)
		wantNotFound(t, call, run(), "orders")
	}
}

func TestDescribe_CountsThePartitionsItShowsThoughTheTopicIsWidenedMeanwhile(t *testing.T) {
	plain, meta := open(t)
	create(t, plain, "orders", 1)
	admin := topics.New(racing{meta, func(ctx context.Context, topic domain.Topic) error {
		_, err := meta.WidenTopic(ctx, topic.ID, 4)
		return err
	}})
	if d, err := admin.Describe(t.Context(), "orders"); err != nil || d.Partitions != 4 || len(d.States) != 4 {
		t.Fatalf("described %+v, %v", d, err)
	}
}
