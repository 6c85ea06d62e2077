package faultproxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// Postgres is a proxy that tells the messages of PostgreSQL's protocol apart.
// It refuses encryption, and does not know the sub-protocols of COPY and replication.
type Postgres struct{ *TCP }

// NewPostgres makes a proxy in front of the server at the address. It closes
// at the end of tb.
func NewPostgres(tb testing.TB, backend string) *Postgres {
	tb.Helper()
	return &Postgres{newTCP(tb, backend, new(intercept))}
}

// Message is one message of a client, after the authentication.
type Message struct {
	// Type is the protocol's letter: 'Q' runs SQL, 'P' prepares it, 'B' binds
	// parameters to it, 'E' runs what was bound, 'S' ends what belongs together.
	Type byte
	// SQL is the text that a Q, P, B or E is about.
	SQL string
	// Bytes is the whole message. The receiver may not keep or change it.
	Bytes []byte
}

// Runs reports whether the message lets the server run its SQL.
func (m Message) Runs() bool { return m.Type == 'Q' || m.Type == 'E' }

// Action is what becomes of a message.
type Action int

const (
	// Pass passes it on.
	Pass Action = iota
	// CutBefore cuts the connection; the server does not get the message.
	CutBefore
	// LoseReply passes the message on, and those that belong to it. Once the
	// server has answered that it is done the connection is cut, and the client has nothing of the
	// answer: it is done, but the client cannot know.
	LoseReply
	// HoldReply passes the message on, and those that belong to it, but holds
	// the answer until Thaw, on a connection that stays open.
	HoldReply
)

// Intercept asks decide about each message from now on, one at a time; nil
// stops that.
func (p *Postgres) Intercept(decide func(Message) Action) {
	p.framed.mu.Lock()
	defer p.framed.mu.Unlock()
	p.framed.decide = decide
}

// Next does the action to the next message that runs SQL with the text in it,
// in whatever case, and intercepts nothing after that. The channel is closed when the message was
// met; the Counts say when its action has come to pass.
func (p *Postgres) Next(text string, action Action) (met <-chan struct{}) {
	found := make(chan struct{})
	var once sync.Once
	text = strings.ToLower(text)
	p.Intercept(func(m Message) Action {
		did := Pass
		if m.Runs() && strings.Contains(strings.ToLower(m.SQL), text) {
			once.Do(func() {
				did = action
				close(found)
			})
		}
		return did
	})
	return found
}

// intercept is what a proxy asks about messages.
type intercept struct {
	mu     sync.Mutex
	decide func(Message) Action
}

func (i *intercept) about(m Message) Action {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.decide == nil {
		return Pass
	}
	return i.decide(m)
}

// session is what a link knows of the conversation on it.
type session struct {
	// statements and portals are SQL by name, known to the goroutine of the
	// direction to the server alone.
	statements, portals map[string]string

	mu sync.Mutex
	// owed is how many times the server is to say that it is done with what was
	// passed on, and done how many times it has.
	owed, done int
	// lose and hold are the number of the answer that is lost or held; 0 for none.
	lose, hold int
	changed    chan struct{} // closed when hold changes
}

// longest is the longest message that is passed on, in bytes.
const longest = 64 << 20

// Codes in place of a protocol version in a connection's first message.
const (
	codeCancel = 80877102
	codeTLS    = 80877103
	codeGSS    = 80877104
)

func (l *link) pumpMessages(d Direction, from net.Conn) error {
	in := bufio.NewReaderSize(from, chunk)
	step := l.toClient
	if d == ToServer {
		cancels, err := l.greet(in)
		if err != nil || cancels {
			return orderly(err)
		}
		step = l.toServer
	}
	for {
		message, err := read(in, 1)
		if err != nil {
			return orderly(err)
		}
		if err := step(message); err != nil {
			return err
		}
	}
}

// read reads a message whose length, which counts itself, follows after skip bytes.
func read(in *bufio.Reader, skip int) ([]byte, error) {
	head := make([]byte, skip+4)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	length := int64(binary.BigEndian.Uint32(head[skip:]))
	if length < 4 || length > longest {
		return nil, fmt.Errorf("a message of %d bytes", length)
	}
	message := make([]byte, skip+int(length))
	copy(message, head)
	if _, err := io.ReadFull(in, message[len(head):]); err != nil {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return message, nil
}

// greet passes on what comes before the first message with a type. A client
// that asks for encryption is refused it; cancels says that the client is here to cancel
// a query of another connection and says no more.
func (l *link) greet(in *bufio.Reader) (cancels bool, err error) {
	l.session.statements, l.session.portals = make(map[string]string), make(map[string]string)
	for {
		message, err := read(in, 0)
		if err != nil {
			return false, err
		}
		if len(message) < 8 {
			return false, errors.New("a greeting without a version")
		}
		switch binary.BigEndian.Uint32(message[4:]) {
		case codeTLS, codeGSS:
			if _, err := l.client.Write([]byte("N")); err != nil {
				return false, err
			}
		case codeCancel:
			return true, l.pass(ToServer, message)
		default:
			l.session.owe()
			return false, l.pass(ToServer, message)
		}
	}
}

func (s *session) owe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owed++
}

// toServer handles one message of the client.
func (l *link) toServer(message []byte) error {
	s := &l.session
	if message[0] == 'p' { // a password is nobody's business
		return l.pass(ToServer, message)
	}
	action := l.proxy.framed.about(s.understand(message))
	if action == CutBefore {
		l.proxy.counts.cutBefore.Add(1)
		l.cut(reset)
		return errCut
	}
	s.mu.Lock()
	// Q, S and F let the server say that it is done, and so does the S that
	// follows a message of another type.
	answer := s.owed + 1
	if strings.IndexByte("QSF", message[0]) >= 0 {
		s.owed++
	}
	switch action {
	case LoseReply:
		s.lose = answer
	case HoldReply:
		s.hold = answer
		l.proxy.counts.held.Add(1)
	case Pass, CutBefore:
	}
	s.mu.Unlock()
	return l.pass(ToServer, message)
}

// understand finds the SQL that a message is about.
func (s *session) understand(message []byte) Message {
	m := Message{Type: message[0], Bytes: message}
	rest := message[5:]
	switch m.Type {
	case 'Q':
		m.SQL, _ = word(rest)
	case 'P':
		name, rest := word(rest)
		m.SQL, _ = word(rest)
		s.statements[name] = m.SQL
	case 'B':
		portal, rest := word(rest)
		name, _ := word(rest)
		m.SQL = s.statements[name]
		s.portals[portal] = m.SQL
	case 'E':
		portal, _ := word(rest)
		m.SQL = s.portals[portal]
	}
	return m
}

// word is the text up to the next zero byte, and what follows it.
func word(b []byte) (text string, rest []byte) {
	before, after, _ := bytes.Cut(b, []byte{0})
	return string(before), after
}

// toClient handles one message of the server.
func (l *link) toClient(message []byte) error {
	s := &l.session
	s.mu.Lock()
	answer := s.done + 1
	if message[0] == 'Z' {
		s.done = answer
	}
	lost := s.lose == answer
	s.mu.Unlock()
	if lost {
		if message[0] != 'Z' {
			return nil
		}
		l.proxy.counts.lost.Add(1)
		l.cut(reset)
		return errCut
	}
	for released := s.held(answer); released != nil; released = s.held(answer) {
		select {
		case <-released:
		case <-l.done:
			return errCut
		}
	}
	return l.pass(ToClient, message)
}

// held is closed when an answer that is held may be let go; nil if it is not held.
func (s *session) held(answer int) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold != answer {
		return nil
	}
	return s.changed
}

// release lets an answer go that is held.
func (l *link) release() {
	s := &l.session
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = 0
	close(s.changed)
	s.changed = make(chan struct{})
}
