package domain_test

import (
	"errors"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
)

func TestValidateName_RefusesWhatCouldMislead(t *testing.T) {
	bad := []string{
		"", ".", "..", strings.Repeat("a", 250), strings.Repeat("a", 1<<20), "/", "a/b", "../x", `..\x`, "%2e%2e", "\x00", "a\x00", "\n", "a\n",
		" ", "a ", " a", "a\tb", "\xff", "\xc3\x28", "é", "a:b", "*", "'", `"`, "a;b", "\u202e", "\x7f",
	}
	for _, what := range []string{"topic", "producer", "group", "agent"} {
		for _, name := range bad {
			err := domain.ValidateName(what, name)
			e := (*domain.InvalidNameError)(nil)
			if !errors.Is(err, domain.ErrInvalidName) || !errors.As(err, &e) || e.What != what || e.Name != name {
				t.Errorf("%s name %.40q is answered %v", what, name, err)
			}
		}
	}
}

func TestValidateName_AcceptsTheRest(t *testing.T) {
	for _, name := range []string{"a", "0", "-", "_", "...", ".a", "a.", "..a", "A.b_c-9", strings.Repeat("z", 249)} {
		if err := domain.ValidateName("topic", name); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		}
	}
}

func TestValidateName_AgreesWithItsPattern(t *testing.T) {
	pattern := regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}\z`)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.StringN(0, 5, -1), rapid.StringMatching(`[A-Za-z0-9._-]{0,260}`)).Draw(t, "name")
		want := pattern.MatchString(name) && name != "." && name != ".."
		if got := domain.ValidateName("topic", name) == nil; got != want {
			t.Fatalf("%q is valid: %v, want %v", name, got, want)
		}
	})
}

func TestTopicSpec_ChecksEveryField(t *testing.T) {
	good := domain.TopicSpec{Name: "orders", Partitions: 1}
	for _, c := range []struct {
		change func(s *domain.TopicSpec)
		want   error
	}{
		{func(*domain.TopicSpec) {}, nil},
		{func(s *domain.TopicSpec) { s.Partitions = domain.MaxPartitions }, nil},
		{func(s *domain.TopicSpec) { s.Retention = domain.Retention{Age: math.MaxInt64, Bytes: math.MaxInt64} }, nil},
		{func(s *domain.TopicSpec) { s.Name = ".." }, domain.ErrInvalidName},
		{func(s *domain.TopicSpec) { s.Partitions = 0 }, domain.ErrConfig},
		{func(s *domain.TopicSpec) { s.Partitions = -1 }, domain.ErrConfig},
		{func(s *domain.TopicSpec) { s.Partitions = domain.MaxPartitions + 1 }, domain.ErrConfig},
		{func(s *domain.TopicSpec) { s.Retention.Age = -time.Nanosecond }, domain.ErrConfig},
		{func(s *domain.TopicSpec) { s.Retention.Bytes = -1 }, domain.ErrConfig},
	} {
		s := good
		c.change(&s)
		if err := s.Validate(); !errors.Is(err, c.want) {
			t.Errorf("%+v is answered %v, want %v", s, err, c.want)
		}
	}
}

func TestTopicSpec_ReportsEveryFaultAtOnce(t *testing.T) {
	s := domain.TopicSpec{Name: "..", Partitions: -1, Retention: domain.Retention{Age: -1, Bytes: -1}}
	text := s.Validate().Error()
	for _, want := range []string{"topic name", "partitions is -1", "retention age is -1ns", "retention bytes is -1"} {
		if !strings.Contains(text, want) {
			t.Errorf("error %q does not say %q", text, want)
		}
	}
}

func TestPartitionChoice_TellsPartitionZeroFromNone(t *testing.T) {
	var none domain.PartitionChoice
	if _, explicit := none.Explicit(); explicit || none.String() != "auto" {
		t.Errorf("no choice is %v", none)
	}
	if id, explicit := domain.ToPartition(0).Explicit(); id != 0 || !explicit || domain.ToPartition(0).String() != "0" {
		t.Errorf("partition 0 is %v", domain.ToPartition(0))
	}
	if id, _ := domain.ToPartition(-1).Explicit(); id != -1 {
		t.Errorf("partition -1 is %v", id)
	}
}

func TestSequence_AddAgreesWithCountingModulo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.Int32Range(0, math.MaxInt32).Draw(t, "sequence")
		n := rapid.Int32Range(0, math.MaxInt32).Draw(t, "records")
		want := domain.Sequence((int64(s) + int64(n)) % (1 << 31))
		if got := domain.Sequence(s).Add(n); got != want {
			t.Fatalf("%d and %d records is %d, want %d", s, n, got, want)
		}
	})
}
