package domain_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

// What an application may conclude from each class of error. A wrong entry
// here is a lost or a repeated record there.
var fates = []struct {
	err  error
	fate domain.Fate
}{
	{domain.ErrNoAgentsAvailable, domain.Fate{Stored: domain.StoredNo, Retry: true}},
	{domain.ErrAgentConnection, domain.Fate{Retry: true}},
	{domain.ErrAgent, domain.Fate{Retry: true}},
	{domain.ErrTopicNotFound, domain.Fate{Stored: domain.StoredNo}},
	{domain.ErrTopicExists, domain.Fate{Stored: domain.StoredNo}},
	{domain.ErrInvalidPartition, domain.Fate{Stored: domain.StoredNo}},
	{domain.ErrInvalidName, domain.Fate{Stored: domain.StoredNo}},
	{domain.ErrMetadata, domain.Fate{Retry: true}},
	{domain.ErrStorage, domain.Fate{Retry: true}},
	{domain.ErrSerialization, domain.Fate{Stored: domain.StoredNo}},
	{domain.ErrCompression, domain.Fate{Stored: domain.StoredNo}},
	{domain.ErrConfig, domain.Fate{Stored: domain.StoredNo}},
	{domain.ErrTimeout, domain.Fate{Retry: true}},
	{domain.ErrInternal, domain.Fate{Fatal: true}},
	{domain.ErrOutcomeUnknown, domain.Fate{}},
	{domain.ErrClosed, domain.Fate{Stored: domain.StoredNo, Fatal: true}},
	{domain.ErrRecordTooLarge, domain.Fate{Stored: domain.StoredNo}},
	{domain.ErrFenced, domain.Fate{Stored: domain.StoredNo, Fatal: true}},
	{domain.ErrBufferFull, domain.Fate{Stored: domain.StoredNo, Retry: true}},
	{domain.ErrOutOfRange, domain.Fate{Stored: domain.StoredNo}},
	{domain.ErrCorrupt, domain.Fate{Stored: domain.StoredNo}},
	{domain.ErrOutOfOrder, domain.Fate{Stored: domain.StoredNo, Retry: true}},
	{domain.ErrOffsetUnknown, domain.Fate{Stored: domain.StoredYes}},
	{domain.ErrSessionExpired, domain.Fate{Stored: domain.StoredNo, Fatal: true}},
}

func TestErrors_EachClassKnowsItsFate(t *testing.T) {
	for _, c := range fates {
		if got := domain.FateOf(c.err); got != c.fate {
			t.Errorf("fate of %q is %+v, want %+v", c.err, got, c.fate)
		}
	}
}

func TestErrors_ClassesAreDistinct(t *testing.T) {
	texts := make(map[string]bool)
	for i, a := range fates {
		if texts[a.err.Error()] {
			t.Errorf("two classes say %q", a.err)
		}
		texts[a.err.Error()] = true
		for j, b := range fates {
			if errors.Is(a.err, b.err) != (i == j) {
				t.Errorf("%q matches %q", a.err, b.err)
			}
		}
	}
}

func TestFateOf_SeesThroughWrapping(t *testing.T) {
	for _, c := range fates {
		wrapped := fmt.Errorf("send to orders: %w", fmt.Errorf("attempt 3: %w", c.err))
		if got := domain.FateOf(wrapped); got != c.fate {
			t.Errorf("fate of %q is %+v, want %+v", wrapped, got, c.fate)
		}
		joined := fmt.Errorf("%w: %w", c.err, io.ErrUnexpectedEOF)
		if got := domain.FateOf(joined); got != c.fate {
			t.Errorf("fate of %q is %+v, want %+v", joined, got, c.fate)
		}
	}
}

func TestFateOf_TheOutermostThatKnowsDecides(t *testing.T) {
	err := fmt.Errorf("%w: %w", domain.ErrOutcomeUnknown, domain.ErrTopicNotFound)
	if got := domain.FateOf(err); got != (domain.Fate{}) {
		t.Errorf("fate is %+v", got)
	}
	delivery := &domain.DeliveryError{Outcome: domain.StoredUnknown, Last: domain.ErrTopicNotFound}
	if got := domain.FateOf(fmt.Errorf("send: %w", delivery)); got.Stored != domain.StoredUnknown {
		t.Errorf("fate is %+v", got)
	}
}

func TestFateOf_SaysUnknownForWhatItDoesNotKnow(t *testing.T) {
	for _, err := range []error{io.EOF, context.Canceled, context.DeadlineExceeded, errors.New("x")} {
		if got := domain.FateOf(err); got != (domain.Fate{}) {
			t.Errorf("fate of %v is %+v", err, got)
		}
	}
	if got := domain.FateOf(nil); got != (domain.Fate{Stored: domain.StoredYes}) {
		t.Errorf("fate of no error is %+v", got)
	}
}

// Each typed error matches its class and says what the caller needs to know.
func TestErrors_CarryTheirClassAndSubject(t *testing.T) {
	for _, c := range []struct {
		err   error
		class error
		says  []string
	}{
		{&domain.TopicNotFoundError{Topic: "orders"}, domain.ErrTopicNotFound, []string{`"orders"`, "create"}},
		{&domain.TopicExistsError{Topic: "orders"}, domain.ErrTopicExists, []string{`"orders"`}},
		{&domain.InvalidPartitionError{Topic: "orders", Partition: 7, Count: 3}, domain.ErrInvalidPartition, []string{`"orders"`, "7", "3"}},
		{&domain.InvalidNameError{What: "topic", Name: "a\nb"}, domain.ErrInvalidName, []string{`topic name "a\nb"`, "249"}},
		{&domain.ConfigError{Field: "BatchSize", Value: "0", Want: "1 or more"}, domain.ErrConfig, []string{"BatchSize is 0", "1 or more"}},
		{&domain.ConfigError{Field: "MetadataStore", Want: "a store"}, domain.ErrConfig, []string{"MetadataStore: want a store"}},
		{&domain.RecordTooLargeError{Topic: "orders", What: "bytes", Size: 9, Limit: 8}, domain.ErrRecordTooLarge, []string{`"orders"`, "9 bytes", "8"}},
		{&domain.OutOfRangeError{Topic: "orders", Partition: 2, Offset: 99, LogStart: 5, HighWatermark: 42}, domain.ErrOutOfRange, []string{`"orders"`, "99", "5", "42"}},
		{&domain.CorruptError{Segment: domain.SegmentID{0xab}, What: "bad magic"}, domain.ErrCorrupt, []string{"ab000000-", "bad magic"}},
		{&domain.CorruptError{What: "bad magic"}, domain.ErrCorrupt, []string{"corrupt data: bad magic"}},
		{&domain.FencedError{Producer: "billing", Epoch: 4}, domain.ErrFenced, []string{`"billing"`, "4"}},
		{&domain.NoAgentsAvailableError{Group: "prod"}, domain.ErrNoAgentsAvailable, []string{`"prod"`}},
	} {
		if !errors.Is(c.err, c.class) || domain.FateOf(c.err) != domain.FateOf(c.class) {
			t.Errorf("%v does not match its class %v", c.err, c.class)
		}
		for _, s := range c.says {
			if !strings.Contains(c.err.Error(), s) {
				t.Errorf("error %q does not say %q", c.err, s)
			}
		}
	}
}

// A name from outside may be of any length; what is said about it may not.
func TestInvalidNameError_QuotesOnlyTheBeginning(t *testing.T) {
	err := &domain.InvalidNameError{What: "topic", Name: strings.Repeat("x", 1<<20)}
	if n := len(err.Error()); n > 300 {
		t.Errorf("the error has %d bytes", n)
	}
	// The beginning alone would look like a name that is valid.
	if !strings.Contains(err.Error(), `x"... of 1048576 bytes is not valid`) {
		t.Errorf("the error is %s", err)
	}
}

func TestDeliveryError_SaysWhatIsKnown(t *testing.T) {
	cause := errors.New("disk on fire")
	for _, c := range []struct {
		err  domain.DeliveryError
		fate domain.Fate
		says string
		is   []error
		not  []error
	}{
		{
			domain.DeliveryError{TimedOut: true, Outcome: domain.StoredUnknown, Last: cause},
			domain.Fate{Retry: true}, "may have been stored",
			[]error{domain.ErrTimeout, domain.ErrOutcomeUnknown, cause}, nil,
		},
		{
			domain.DeliveryError{TimedOut: true, Outcome: domain.StoredNo},
			domain.Fate{Stored: domain.StoredNo, Retry: true}, "was not stored",
			[]error{domain.ErrTimeout}, []error{domain.ErrOutcomeUnknown},
		},
		{
			domain.DeliveryError{Outcome: domain.StoredNo, Last: &domain.FencedError{}},
			domain.Fate{Stored: domain.StoredNo, Fatal: true}, "was not stored",
			[]error{domain.ErrFenced}, []error{domain.ErrTimeout, domain.ErrOutcomeUnknown},
		},
		{
			domain.DeliveryError{TimedOut: true, Outcome: domain.StoredYes},
			domain.Fate{Stored: domain.StoredYes, Retry: true}, "it was stored",
			[]error{domain.ErrTimeout}, []error{domain.ErrOutcomeUnknown},
		},
	} {
		c.err.Topic, c.err.Partition, c.err.Attempts, c.err.Elapsed = "orders", 3, 7, 90*time.Second
		text := c.err.Error()
		for _, s := range []string{`"orders"`, "partition 3", "7 attempts", "1m30s", c.says} {
			if !strings.Contains(text, s) {
				t.Errorf("error %q does not say %q", text, s)
			}
		}
		if got := domain.FateOf(&c.err); got != c.fate {
			t.Errorf("fate of %q is %+v, want %+v", text, got, c.fate)
		}
		for _, target := range c.is {
			if !errors.Is(&c.err, target) {
				t.Errorf("error %q does not match %q", text, target)
			}
		}
		for _, target := range c.not {
			if errors.Is(&c.err, target) {
				t.Errorf("error %q matches %q", text, target)
			}
		}
	}
}

func TestStored_HasWords(t *testing.T) {
	for s, want := range map[domain.Stored]string{domain.StoredNo: "no", domain.StoredYes: "yes", domain.StoredUnknown: "unknown", 77: "unknown"} {
		if s.String() != want {
			t.Errorf("%d is %q, want %q", s, s, want)
		}
	}
}
