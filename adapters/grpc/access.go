package grpc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// Scope is a kind of call that a caller may make.
type Scope string

// The scopes. None includes another.
const (
	ScopeRead  Scope = "read"
	ScopeWrite Scope = "write"
	ScopeAdmin Scope = "admin"
)

// Principal is a caller and what it may do.
type Principal struct {
	// Name is for people.
	Name string
	// Scopes are the kinds of calls it may make.
	Scopes []Scope
	// Topics are prefixes of the names of the topics it may touch. "" is the
	// prefix of all names; no prefix at all allows no topic.
	Topics []string
}

// Credentials is what a caller shows.
type Credentials struct {
	// Token is the bearer token, empty if there is none.
	Token string
	// TLS is the state of the connection, nil if it has none. PeerCertificates
	// are verified as the server's tls.Config says.
	TLS *tls.ConnectionState
}

// Authorizer tells who a caller is. It is asked once for each call and must be
// quick; it may be called from several goroutines.
type Authorizer interface {
	// Authorize returns the principal that c shows. Any error refuses the call;
	// its words are not told to the caller.
	Authorize(ctx context.Context, c Credentials) (Principal, error)
}

// Tokens is an Authorizer that knows a fixed list of bearer tokens.
type Tokens struct{ entries []tokenEntry }

type tokenEntry struct {
	digest [sha256.Size]byte
	who    Principal
}

var errUnknownToken = errors.New("unknown token")

// NewTokens makes an Authorizer of tokens and the principals they stand for.
// *domain.ConfigError: a token has fewer than 16 bytes, or a principal no scope, an unknown
// one, or no topics; the token is not quoted.
func NewTokens(tokens map[string]Principal) (*Tokens, error) {
	t := new(Tokens)
	var errs []error
	for token, who := range tokens {
		field := fmt.Sprintf("token of %q", who.Name)
		if len(token) < 16 {
			errs = append(errs, &domain.ConfigError{Field: field, Want: "16 bytes or more"})
		}
		unknown := slices.ContainsFunc(who.Scopes, func(s Scope) bool { return s != ScopeRead && s != ScopeWrite && s != ScopeAdmin })
		if len(who.Scopes) == 0 || unknown {
			errs = append(errs, &domain.ConfigError{Field: field + " scopes", Value: fmt.Sprintf("%q", who.Scopes), Want: "some of read, write, admin"})
		}
		if len(who.Topics) == 0 {
			errs = append(errs, &domain.ConfigError{Field: field + " topics", Want: `prefixes of topic names, "" for all`})
		}
		t.entries = append(t.entries, tokenEntry{sha256.Sum256([]byte(token)), who})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return t, nil
}

// Authorize implements Authorizer. How long it takes tells nothing about the
// tokens: digests are compared in constant time, and all of them.
func (t *Tokens) Authorize(_ context.Context, c Credentials) (Principal, error) {
	digest := sha256.Sum256([]byte(c.Token))
	found := -1
	for i := range t.entries {
		match := subtle.ConstantTimeCompare(digest[:], t.entries[i].digest[:])
		found = subtle.ConstantTimeSelect(match, i, found)
	}
	if found < 0 {
		return Principal{}, errUnknownToken
	}
	return t.entries[found].who, nil
}

// access is what one call may touch. Nil allows everything.
type access struct {
	who   Principal
	names *topicNames
}

type accessKey struct{}

func accessOf(ctx context.Context) *access {
	a, _ := ctx.Value(accessKey{}).(*access)
	return a
}

// enter decides whether a call may be made at all, and returns its context with
// what it may touch. The one place where that is decided.
func (s *Server) enter(ctx context.Context, method string) (context.Context, rule, error) {
	r, known := rules[strings.TrimPrefix(method, "/")]
	if s.cfg.Authorizer == nil {
		return ctx, r, nil
	}
	if !known {
		return ctx, r, statusOf(agentError(clip(method), ports.Definite, ErrPermissionDenied))
	}
	if r.public {
		return ctx, r, nil
	}
	who, err := s.cfg.Authorizer.Authorize(ctx, credentialsOf(ctx))
	if err != nil {
		return ctx, r, statusOf(agentError(clip(method), ports.Definite, ErrUnauthenticated))
	}
	if !slices.ContainsFunc(r.scopes, func(sc Scope) bool { return slices.Contains(who.Scopes, sc) || mutant.On(mutantScopeUnchecked) }) {
		err := fmt.Errorf("%w: %q has not the scope %q", ErrPermissionDenied, who.Name, r.scopes[0])
		return ctx, r, statusOf(agentError(clip(method), ports.Definite, err))
	}
	return context.WithValue(ctx, accessKey{}, &access{who, s.names}), r, nil
}

// credentialsOf reads what the caller of ctx shows. Several authorization headers
// are as good as none.
func credentialsOf(ctx context.Context) Credentials {
	var c Credentials
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if values := md.Get("authorization"); len(values) == 1 {
			if scheme, token, found := strings.Cut(values[0], " "); found && strings.EqualFold(scheme, "bearer") {
				c.Token = token
			}
		}
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			c.TLS = &info.State
		}
	}
	return c
}

// name refuses a topic that the call may not touch.
func (a *access) name(topic string) error {
	if a == nil || slices.ContainsFunc(a.who.Topics, func(p string) bool { return strings.HasPrefix(topic, p) }) {
		return nil
	}
	return agentError("check topic", ports.Definite, fmt.Errorf("%w: %q may not touch topic %.80q", ErrPermissionDenied, a.who.Name, topic))
}

// id refuses a topic, by its id, that the call may not touch. One that does not
// exist is not found.
func (a *access) id(ctx context.Context, id domain.TopicID) error {
	if a == nil || slices.Contains(a.who.Topics, "") || mutant.On(mutantTopicUnchecked) {
		return nil
	}
	name, err := a.names.of(ctx, id)
	if err != nil {
		return err
	}
	return a.name(name)
}

// topicNames remembers the names of topics by id. A topic keeps its name for
// ever, so what is known stays true; what is not known is looked up, for all callers
// at once and not more often than every namesAge.
type topicNames struct {
	topics ports.Topics

	mu    sync.Mutex
	known map[domain.TopicID]string
	read  time.Time
	turn  chan struct{} // holds a token while nobody looks up
}

const namesAge = 200 * time.Millisecond

func newTopicNames(topics ports.Topics) *topicNames {
	n := &topicNames{topics: topics, turn: make(chan struct{}, 1)}
	n.turn <- struct{}{}
	return n
}

func (n *topicNames) of(ctx context.Context, id domain.TopicID) (string, error) {
	if name, ok := n.find(id); ok {
		return name, nil
	}
	select {
	case <-n.turn:
		defer func() { n.turn <- struct{}{} }()
	case <-ctx.Done():
		return "", agentError("look up topic", ports.Transient, context.Cause(ctx))
	}
	if name, ok := n.find(id); ok {
		return name, nil
	}
	if time.Since(n.read) > namesAge { // only the holder of the turn touches it
		all, err := n.topics.ListTopics(ctx)
		if err != nil {
			return "", agentError("look up topic", ports.Transient, err)
		}
		n.replace(all)
		n.read = time.Now()
	}
	if name, ok := n.find(id); ok {
		return name, nil
	}
	return "", fmt.Errorf("topic %s: %w", id, domain.ErrTopicNotFound)
}

func (n *topicNames) find(id domain.TopicID) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, ok := n.known[id]
	return name, ok
}

func (n *topicNames) replace(all []domain.Topic) {
	known := make(map[domain.TopicID]string, len(all))
	for _, t := range all {
		known[t.ID] = t.Name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known = known
}
