package recordio

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

// MaxJSONLine bounds a JSON line: a record of the largest size in which every
// byte is written as \u00XX, and room for names and numbers.
const MaxJSONLine = 6*domain.MaxRecordBytes + 1<<20

// Parser reads JSON lines. It keeps its buffers between records, so the slices
// in a parsed record are valid until the next Parse.
type Parser struct {
	text    lexer
	headers []domain.Header
	seen    fieldSet
}

type fieldSet uint16

const (
	fieldKey fieldSet = 1 << iota
	fieldValue
	fieldHeaders
	fieldPartition
	fieldTimestamp
	fieldTopic
	fieldOffset
)

// Parse reads one object into r, all of whose fields but Topic it sets:
//
//	{"key":"user123","value":"...","headers":{"name":"value"},"partition":0,"timestamp":"2026-01-02T15:04:05Z"}
//
// A field that is missing or null is not set; the value then is null. Bytes are
// given in base64 as "key_base64" and "value_base64"; headers also as a list of
// {"key","value"}, the timestamp also in Unix milliseconds. "topic" and "offset", which
// consume writes, are read and ignored. An unknown or repeated field, text that
// is not UTF-8 and anything after the object are errors.
func (p *Parser) Parse(line []byte, r *domain.Record) error {
	if p.text.scratch == nil {
		p.text.scratch = make([]byte, 0, 256)
	}
	p.text = lexer{in: line, scratch: p.text.scratch[:0]}
	p.headers, p.seen = p.headers[:0], 0
	*r = domain.Record{Topic: r.Topic}
	err := p.text.object(func(name []byte) error { return p.field(name, r) })
	if err != nil {
		return err
	}
	return p.text.end()
}

func (p *Parser) field(name []byte, r *domain.Record) (err error) {
	switch string(name) {
	case "key", "key_base64":
		if err = p.once(fieldKey, "key"); err == nil {
			r.Key, err = p.bytes(len(name) > len("key"))
		}
	case "value", "value_base64":
		if err = p.once(fieldValue, "value"); err == nil {
			r.Value, err = p.bytes(len(name) > len("value"))
		}
	case "headers":
		if err = p.once(fieldHeaders, "headers"); err == nil {
			r.Headers, err = p.parseHeaders()
		}
	case "partition":
		if err = p.once(fieldPartition, "partition"); err == nil {
			r.Partition, err = p.partition()
		}
	case "timestamp":
		if err = p.once(fieldTimestamp, "timestamp"); err == nil {
			r.Timestamp, err = p.timestamp()
		}
	case "topic":
		if err = p.once(fieldTopic, "topic"); err == nil {
			_, err = p.text.string()
		}
	case "offset":
		if err = p.once(fieldOffset, "offset"); err == nil {
			_, err = p.text.integer()
		}
	default:
		return p.text.errorf("unknown field %.60q: want key, value, headers, partition or timestamp (key_base64, value_base64 for bytes)", name)
	}
	return err
}

func (p *Parser) once(f fieldSet, name string) error {
	if p.seen&f != 0 {
		return p.text.errorf("%s is given twice", name)
	}
	p.seen |= f
	return nil
}

// bytes reads a string, or null as nil; never nil for a string.
func (p *Parser) bytes(encoded bool) ([]byte, error) {
	if !encoded && p.text.null() {
		return nil, nil
	}
	s, err := p.text.string()
	if err != nil || !encoded {
		return s, err
	}
	return p.decodeBase64(s)
}

func (p *Parser) decodeBase64(s []byte) ([]byte, error) {
	if bytes.ContainsAny(s, "\r\n") {
		return nil, p.text.errorf("base64 must not hold line ends")
	}
	from := len(p.text.scratch)
	out, err := base64.StdEncoding.Strict().AppendDecode(p.text.scratch, s)
	if err != nil {
		return nil, p.text.errorf("%v: want standard base64 with padding", err)
	}
	p.text.scratch = out
	return out[from:len(out):len(out)], nil
}

func (p *Parser) partition() (domain.PartitionChoice, error) {
	if p.text.null() {
		return domain.PartitionChoice{}, nil
	}
	n, err := p.text.integer()
	if err != nil {
		return domain.PartitionChoice{}, err
	}
	if n < 0 || n > 1<<31-1 {
		return domain.PartitionChoice{}, p.text.errorf("partition %d: want 0 or more", n)
	}
	return domain.ToPartition(domain.PartitionID(n)), nil
}

func (p *Parser) timestamp() (time.Time, error) {
	if p.text.null() {
		return time.Time{}, nil
	}
	if p.text.peek() != '"' {
		ms, err := p.text.integer()
		return p.nonZero(time.UnixMilli(ms), err)
	}
	s, err := p.text.string()
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339Nano, string(s))
	if err != nil {
		return time.Time{}, p.text.errorf("timestamp %.40q: want RFC 3339 such as 2026-01-02T15:04:05Z, or Unix milliseconds", s)
	}
	return p.nonZero(t, nil)
}

// nonZero refuses the one time that Go takes for none.
func (p *Parser) nonZero(t time.Time, err error) (time.Time, error) {
	if err == nil && t.IsZero() {
		err = p.text.errorf("timestamp %s: want a later one", t.Format(time.RFC3339))
	}
	return t, err
}

func (p *Parser) parseHeaders() ([]domain.Header, error) {
	var err error
	switch p.text.peek() {
	case '{':
		err = p.text.object(func(name []byte) error {
			h := domain.Header{Key: string(name)}
			var err error
			h.Value, err = p.bytes(false)
			p.headers = append(p.headers, h)
			return err
		})
	case '[':
		err = p.text.list(p.header)
	default:
		if p.text.null() {
			return nil, nil
		}
		return nil, p.text.errorf("want headers as an object or a list")
	}
	if err != nil || len(p.headers) == 0 {
		return nil, err
	}
	return p.headers, nil
}

// header reads one object of a header list.
func (p *Parser) header() error {
	var h domain.Header
	var seen fieldSet
	err := p.text.object(func(name []byte) error {
		field := fieldKey
		if len(name) > 0 && name[0] == 'v' {
			field = fieldValue
		}
		switch string(name) {
		case "key", "value", "key_base64", "value_base64":
		default:
			return p.text.errorf("unknown header field %.60q: want key and value", name)
		}
		if seen&field != 0 {
			return p.text.errorf("header has two of %q", name)
		}
		seen |= field
		encoded := bytes.HasSuffix(name, []byte("_base64"))
		if field == fieldKey && p.text.null() {
			return p.text.errorf("header key must not be null")
		}
		b, err := p.bytes(encoded)
		if field == fieldKey {
			h.Key = string(b)
		} else {
			h.Value = b
		}
		return err
	})
	if err == nil && seen&fieldKey == 0 {
		err = p.text.errorf("header without a key")
	}
	p.headers = append(p.headers, h)
	return err
}

// SyntaxError is a JSON line that cannot be a record.
type SyntaxError struct {
	// Column counts bytes from 1.
	Column int
	What   string
}

func (e *SyntaxError) Error() string { return "column " + strconv.Itoa(e.Column) + ": " + e.What }

func (l *lexer) errorf(format string, args ...any) error {
	return &SyntaxError{Column: l.at + 1, What: fmt.Sprintf(format, args...)}
}
