package grpc_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/ports"
)

func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // a message of ours
	}
	return b
}

// TestFrames_OfEarlierAgentsAreUnderstood lets the client of today talk to what
// agents of earlier releases have said: it sees what the client of that release saw.
func TestFrames_OfEarlierAgentsAreUnderstood(t *testing.T) {
	for name, talk := range golden(t) {
		t.Run(name, func(t *testing.T) {
			p := &player{left: slices.Clone(talk.Calls), last: make(map[string]*recorded)}
			saw := tour(t, rawServer(t, p.handle))
			if !slices.Equal(saw, talk.Saw) {
				for i := range min(len(saw), len(talk.Saw)) {
					if saw[i] != talk.Saw[i] {
						t.Errorf("the client sees %swhere that of the release saw %s", saw[i], talk.Saw[i])
					}
				}
				t.Errorf("the client sees %d things, that of the release saw %d", len(saw), len(talk.Saw))
			}
		})
	}
}

// player answers as it is written down.
type player struct {
	mu   sync.Mutex // guards all below
	left []*recorded
	last map[string]*recorded
}

// take finds the call that the request is of: the first of its method with this
// first message, else the first of the method, else the last one once more.
func (p *player) take(method string, first []byte) *recorded {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := func(exact bool) int {
		return slices.IndexFunc(p.left, func(r *recorded) bool {
			return r.Method == method && (!exact || bytes.Equal(r.first(), first))
		})
	}
	i := of(true)
	if i < 0 {
		i = of(false)
	}
	if i >= 0 {
		p.last[method] = p.left[i]
		p.left = slices.Delete(p.left, i, i+1)
	}
	return p.last[method]
}

func (p *player) handle(_ any, in grpcgo.ServerStream) error {
	method, _ := grpcgo.MethodFromServerStream(in)
	var first []byte
	streams := strings.HasSuffix(method, "/Produce") // where the agent speaks first
	if !streams {
		if err := in.RecvMsg(&first); err != nil {
			return err
		}
	}
	call := p.take(method, first)
	if call == nil {
		return fmt.Errorf("nobody has called %s", method)
	}
	for _, f := range call.Frames {
		switch {
		case !f.ToAgent:
			if err := in.SendMsg(&f.Data); err != nil {
				return err
			}
		case streams:
			if err := in.RecvMsg(new([]byte)); err != nil {
				return err
			}
		}
	}
	for streams { // until the client goes
		if err := in.RecvMsg(new([]byte)); err != nil {
			break
		}
	}
	end := status.New(codes.OK, "").Proto()
	if err := proto.Unmarshal(call.Status, end); err != nil {
		return err
	}
	return status.ErrorProto(end)
}

// TestFrames_OfEarlierClientsAreAnswered sends an agent of today what clients of
// earlier releases have sent: it answers all that agents of that release answered.
func TestFrames_OfEarlierClientsAreAnswered(t *testing.T) {
	for name, talk := range golden(t) {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, tcp{})
			a := c.start("")
			if _, err := c.agents.Register(t.Context(), ports.AgentSpec{Group: "listed", Zone: "z", Address: "10.0.0.7:7070", Version: "v"}); err != nil {
				t.Fatal(err)
			}
			r := &replay{T: t, conn: rawConn(t, a.addr)}
			for i, call := range talk.Calls {
				if err := r.play(call); err != nil {
					t.Errorf("call %d, %s: %v", i, call.Method, err)
				}
			}
			if r.then == nil {
				t.Error("no topic was made")
			}
		})
	}
}

// replay is a client of an earlier release.
type replay struct {
	*testing.T
	conn *grpcgo.ClientConn
	// then is the id of the topic that was made then, now that of the one that
	// is made instead. Both have 16 bytes.
	then, now []byte
}

func (r *replay) play(call *recorded) error {
	stream, err := r.conn.NewStream(r.Context(), bothWays, call.Method)
	if err != nil {
		return err
	}
	unary := !strings.HasSuffix(call.Method, "/Produce")
	var errs []error
	for _, f := range call.Frames {
		data := f.Data
		if f.ToAgent {
			if r.then != nil {
				data = bytes.ReplaceAll(data, r.then, r.now)
			}
			err := stream.SendMsg(&data)
			if unary {
				err = errors.Join(err, stream.CloseSend())
			}
			if err != nil {
				return err
			}
			continue
		}
		var got []byte
		if err := stream.RecvMsg(&got); err != nil {
			return fmt.Errorf("an answer is due: %w", err)
		}
		errs = append(errs, r.compare(call.Method, data, got))
	}
	errs = append(errs, stream.CloseSend())
	err = stream.RecvMsg(new([]byte))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if unary || len(call.Status) > 0 {
		errs = append(errs, compareEnds(call.Status, err))
	}
	return errors.Join(errs...)
}

// compare demands that all that was said then is said now. What is new is no
// matter of a client that does not know it.
func (r *replay) compare(method string, then, now []byte) error {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return err
	}
	output := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name)).Output()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(output.FullName())
	if err != nil {
		return err
	}
	old, answer := kind.New(), kind.New()
	if err := errors.Join(proto.Unmarshal(then, old.Interface()), proto.Unmarshal(now, answer.Interface())); err != nil {
		return err
	}
	if made, ok := old.Interface().(*agentv1.CreateTopicResponse); ok {
		r.then, r.now = made.GetTopic().GetId(), answer.Interface().(*agentv1.CreateTopicResponse).GetTopic().GetId()
	}
	if r.then != nil {
		if err := proto.Unmarshal(bytes.ReplaceAll(then, r.then, r.now), old.Interface()); err != nil {
			return err
		}
	}
	return contained(old, answer)
}

// differs are the fields that are of a run, or are words for people.
var differs = map[protoreflect.Name]bool{
	"created_at_seconds": true, "created_at_nanos": true, "started_at_ns": true, "seen_at_ns": true, "id": true,
	"text": true, "operation": true, "version": true, "what": true, "window_bytes": true, "max_batches": true, "max_request_bytes": true,
}

// contained reports a field of then that now does not have, or has otherwise.
func contained(then, now protoreflect.Message) (err error) {
	then.Range(func(f protoreflect.FieldDescriptor, old protoreflect.Value) bool {
		switch answer := now.Get(f); {
		case !now.Has(f):
			err = fmt.Errorf("no %s is answered", f.FullName())
		case differs[f.Name()]:
		case f.IsList() && f.Message() != nil:
			if old.List().Len() != answer.List().Len() {
				err = fmt.Errorf("%d of %s are answered, want %d", answer.List().Len(), f.FullName(), old.List().Len())
			}
			for i := 0; err == nil && i < old.List().Len(); i++ {
				err = contained(old.List().Get(i).Message(), answer.List().Get(i).Message())
			}
		case f.Message() != nil:
			err = contained(old.Message(), answer.Message())
		case !old.Equal(answer):
			err = fmt.Errorf("%s is %v, want %v", f.FullName(), answer, old)
		}
		return err == nil
	})
	return err
}

// compareEnds compares how a call has ended: the code, and the details.
func compareEnds(then []byte, now error) error {
	old, s := status.New(codes.OK, "").Proto(), status.Convert(now).Proto()
	if err := proto.Unmarshal(then, old); err != nil {
		return err
	}
	if old.GetCode() != s.GetCode() || len(old.GetDetails()) > len(s.GetDetails()) {
		return fmt.Errorf("it ends with %v, want %v", s, old)
	}
	for i, detail := range old.GetDetails() {
		before, err := detail.UnmarshalNew()
		after, err2 := s.GetDetails()[i].UnmarshalNew()
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if before.ProtoReflect().Descriptor() != after.ProtoReflect().Descriptor() {
			return fmt.Errorf("detail %d is %v, want %v", i, after, before)
		}
		if err := contained(before.ProtoReflect(), after.ProtoReflect()); err != nil {
			return err
		}
	}
	return nil
}
