package grpc

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// typed are the errors of domain that hold data, one of each type.
func typed() []error {
	return []error{
		&domain.TopicNotFoundError{Topic: "orders"},
		&domain.TopicExistsError{Topic: "orders"},
		&domain.InvalidPartitionError{Topic: "orders", Partition: -3, Count: 8},
		&domain.InvalidNameError{What: "topic", Name: "a\xffb"},
		&domain.ConfigError{Field: "partitions", Value: "0", Want: "1 or more"},
		&domain.RecordTooLargeError{Topic: "orders", What: "bytes", Size: 1 << 30, Limit: 1 << 20},
		&domain.OutOfRangeError{Topic: "orders", Partition: 7, Offset: -1, LogStart: 5, HighWatermark: 1 << 60},
		&domain.CorruptError{Segment: domain.SegmentID{1, 2, 3}, What: "checksum"},
		&domain.FencedError{Producer: "billing", Epoch: 3},
		&domain.NoAgentsAvailableError{Group: "default"},
		&domain.DeliveryError{
			Topic: "orders", Partition: 2, Attempts: 4, Elapsed: time.Second, TimedOut: true, Outcome: domain.StoredNo,
			Last: ports.StorageError("put", ports.Transient, domain.ErrTimeout),
		},
	}
}

// samples are errors as they come out of ports: those of domain alone, wrapped,
// and as causes of failures of every kind.
func samples() []error {
	all := typed()
	for _, c := range classes {
		all = append(all, c.err)
	}
	for _, err := range all {
		all = append(all,
			fmt.Errorf("commit of topic x: %w", err),
			fmt.Errorf("two: %w, %w", domain.ErrTimeout, err),
			errors.Join(errors.New("another"), err),
			ports.MetadataError("commit", ports.Ambiguous, err),
			ports.StorageError("put", ports.Transient, fmt.Errorf("again: %w", err)),
			ports.MetadataError("commit", ports.Fatal, err),
			agentError("append", ports.Definite, err),
		)
	}
	return append(all,
		errors.New("unknown to all"),
		&domain.DeliveryError{Outcome: domain.StoredYes},
		&domain.CorruptError{What: "record batch"},
		noRoom("full", time.Second), notReady("drains"),
		&fatedError{remoteError{text: "knows its fate"}, domain.Fate{Stored: domain.StoredNo, Retry: true}},
		&ports.Error{Class: errors.New("a class of its own"), Op: "x", Kind: ports.Definite, Err: domain.ErrClosed},
	)
}

// overTheWire encodes err, sends its bytes, and decodes them.
func overTheWire(t *testing.T, err error) error {
	t.Helper()
	b, marshalErr := proto.Marshal(encodeError(err))
	if marshalErr != nil {
		t.Fatal(marshalErr)
	}
	e := new(agentv1.Error)
	if unmarshalErr := proto.Unmarshal(b, e); unmarshalErr != nil {
		t.Fatal(unmarshalErr)
	}
	return decodeError(e)
}

func TestErrors_SayTheSameBehindTheWire(t *testing.T) {
	for _, err := range samples() {
		got := overTheWire(t, err)
		if domain.FateOf(got) != domain.FateOf(err) || ports.KindOf(got) != ports.KindOf(err) {
			t.Errorf("%v: fate %+v and kind %v, were %+v and %v", err, domain.FateOf(got), ports.KindOf(got), domain.FateOf(err), ports.KindOf(err))
		}
		for _, c := range classes {
			foreign := strings.Contains(err.Error(), "a class of its own") && c.err == domain.ErrAgent
			if errors.Is(got, c.err) != errors.Is(err, c.err) && !foreign {
				t.Errorf("%v: Is(%v) is %v, was %v", err, c.err, errors.Is(got, c.err), errors.Is(err, c.err))
			}
		}
		if got.Error() != err.Error() && !errors.Is(err, ErrNoRoom) && !strings.Contains(err.Error(), "a class of its own") {
			t.Errorf("says %q, was %q", got, err)
		}
	}
	if decodeError(encodeError(nil)) != nil {
		t.Error("no error became one")
	}
}

func TestErrors_KeepTheirDataBehindTheWire(t *testing.T) {
	for _, err := range typed() {
		for _, wrapped := range []error{err, fmt.Errorf("wrapped: %w", err), ports.MetadataError("op", ports.Transient, err)} {
			target := reflect.New(reflect.TypeOf(err))
			if !errors.As(overTheWire(t, wrapped), target.Interface()) {
				t.Errorf("%T is not found in %v", err, wrapped)
				continue
			}
			got := target.Elem().Interface()
			if d, ok := got.(*domain.DeliveryError); ok {
				want := err.(*domain.DeliveryError)
				if d.Error() != want.Error() || d.TimedOut != want.TimedOut || d.Outcome != want.Outcome {
					t.Errorf("%+v became %+v", want, d)
				}
				continue
			}
			if !reflect.DeepEqual(got, err) {
				t.Errorf("%+v became %+v", err, got)
			}
		}
	}
	var hint *roomError
	if e := encodeError(noRoom("x", 250*time.Millisecond)); e.GetRetryAfterMs() != 250 || errors.As(decodeError(e), &hint) {
		t.Errorf("the hint is %d ms", e.GetRetryAfterMs())
	}
}

// TestErrors_OfDomainAreAllKnown fails when domain gets an error that would
// cross the wire as mere words.
func TestErrors_OfDomainAreAllKnown(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../domain/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var sentinels, types []string
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			for _, name := range n.Names {
				if strings.HasPrefix(name.Name, "Err") {
					sentinels = append(sentinels, name.Name)
				}
			}
		case *ast.TypeSpec:
			if strings.HasSuffix(n.Name.Name, "Error") {
				types = append(types, n.Name.Name)
			}
		}
		return true
	})
	domainClasses := 0
	for _, c := range classes {
		if _, ok := c.err.(interface{ Fate() domain.Fate }); ok {
			domainClasses++
		}
	}
	if len(sentinels) < 20 || len(sentinels) != domainClasses {
		t.Errorf("domain has %d static errors, %d are known: %v", len(sentinels), domainClasses, sentinels)
	}
	known := make(map[string]bool)
	for _, err := range typed() {
		known[reflect.TypeOf(err).Elem().Name()] = true
		if encodeKnown(err, 0, new(int)) == nil {
			t.Errorf("%T has no form of its own", err)
		}
	}
	for _, name := range types {
		if !known[name] {
			t.Errorf("%s is not among the errors tested", name)
		}
	}
}

func TestErrors_OfAnyShapeAreBounded(t *testing.T) {
	deep := error(&domain.TopicNotFoundError{Topic: "orders"})
	for range 1000 {
		deep = fmt.Errorf("%s: %w", strings.Repeat("x", 50), deep)
	}
	var many []error
	for range 1000 {
		many = append(many, ports.MetadataError(strings.Repeat("op", 1000), ports.Definite, domain.ErrTopicNotFound))
	}
	for _, err := range []error{deep, errors.Join(many...), errors.New(strings.Repeat("\xff", 1<<20))} {
		e := encodeError(err)
		if size := proto.Size(e); size > 256<<10 {
			t.Errorf("an error of %d bytes", size)
		}
		if got := decodeError(e); domain.FateOf(got) != domain.FateOf(err) {
			t.Errorf("the fate is %+v, was %+v", domain.FateOf(got), domain.FateOf(err))
		}
	}
	hostile := &agentv1.Error{Text: "x"}
	for range 5000 {
		hostile = &agentv1.Error{Text: "x", Causes: []*agentv1.Error{hostile, nil, {}}}
	}
	if decodeError(hostile) == nil {
		t.Error("an error became none")
	}
	for _, e := range []*agentv1.Error{{}, {Kind: &agentv1.Error_Class{Class: 999}}, {Kind: &agentv1.Error_Port_{}}, {Kind: &agentv1.Error_Port_{Port: &agentv1.Error_Port{Class: 999, Kind: 999}}}} {
		if err := decodeError(e); err == nil || err.Error() == "" || domain.FateOf(err).Stored != domain.StoredUnknown {
			t.Errorf("%v became %v", e, err)
		}
	}
}

func TestStatus_CarriesTheError(t *testing.T) {
	for _, err := range samples() {
		s := statusOf(err)
		if status.Code(s) == codes.OK {
			t.Errorf("%v is answered with OK", err)
		}
		got := callError(t.Context(), "call", ports.Ambiguous, s)
		ends := domain.FateOf(err).Fatal || errors.Is(err, domain.ErrClosed)
		if ends && !errors.Is(err, domain.ErrFenced) && !errors.Is(err, domain.ErrSessionExpired) {
			if f := domain.FateOf(got); f.Fatal || !f.Retry || f.Stored == domain.StoredNo && domain.FateOf(err).Stored != domain.StoredNo {
				t.Errorf("%v: the end of an agent has fate %+v for its client", err, f)
			}
			continue
		}
		if domain.FateOf(got) != domain.FateOf(err) || ports.KindOf(got) != ports.KindOf(err) {
			t.Errorf("%v: fate %+v and kind %v, were %+v and %v", err, domain.FateOf(got), ports.KindOf(got), domain.FateOf(err), ports.KindOf(err))
		}
	}
}

func TestStatus_CodesAreTheUsualOnes(t *testing.T) {
	for err, want := range map[error]codes.Code{
		&domain.TopicNotFoundError{}: codes.NotFound,
		&domain.TopicExistsError{}:   codes.AlreadyExists,
		&domain.OutOfRangeError{}:    codes.OutOfRange,
		noRoom("x", 1):               codes.ResourceExhausted,
		notReady("x"):                codes.Unavailable,
		agentError("x", ports.Definite, ErrPermissionDenied):        codes.PermissionDenied,
		ports.MetadataError("x", ports.Transient, context.Canceled): codes.Canceled,
		ports.MetadataError("x", ports.Ambiguous, errors.New("x")):  codes.Unknown,
		ports.MetadataError("x", ports.Fatal, errors.New("x")):      codes.Internal,
	} {
		if got := codeOf(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

func TestStatus_OfOthersIsUnderstood(t *testing.T) {
	for code, want := range map[codes.Code]ports.Kind{
		codes.Unavailable:        ports.Ambiguous,
		codes.DeadlineExceeded:   ports.Ambiguous,
		codes.Internal:           ports.Ambiguous,
		codes.Unauthenticated:    ports.Definite,
		codes.PermissionDenied:   ports.Definite,
		codes.InvalidArgument:    ports.Definite,
		codes.Unimplemented:      ports.Definite,
		codes.ResourceExhausted:  ports.Transient,
		codes.FailedPrecondition: ports.Ambiguous,
	} {
		err := callError(t.Context(), "call", ports.Ambiguous, status.Error(code, "words"))
		if ports.KindOf(err) != want || !strings.Contains(err.Error(), "words") {
			t.Errorf("%v became %v, kind %v, want %v", code, err, ports.KindOf(err), want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := callError(ctx, "call", ports.Transient, status.FromContextError(ctx.Err()).Err()); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call says %v", err)
	}
}
