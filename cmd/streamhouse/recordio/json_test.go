package recordio

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/streamhouse/streamhouse/domain"
)

func parse(t *testing.T, line string) domain.Record {
	t.Helper()
	var r domain.Record
	if err := new(Parser).Parse([]byte(line), &r); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return r
}

func TestParse_ReadsEveryField(t *testing.T) {
	got := parse(t, ` { "key" : "user\u00e9\ud83d\ude00", "value":"a\"b\\c\/d\b\f\n\r\t",
		"headers":{"b":"2","a":null,"c":""},"partition":7,"timestamp":"2026-01-02T15:04:05.678+01:00" } `)
	want := domain.Record{
		Key: []byte("useré😀"), Value: []byte("a\"b\\c/d\b\f\n\r\t"),
		Headers:   []domain.Header{{Key: "b", Value: []byte("2")}, {Key: "a"}, {Key: "c", Value: []byte{}}},
		Partition: domain.ToPartition(7),
		Timestamp: time.Date(2026, 1, 2, 14, 4, 5, 678e6, time.UTC),
	}
	if !got.Timestamp.Equal(want.Timestamp) {
		t.Errorf("timestamp is %s", got.Timestamp)
	}
	got.Timestamp = want.Timestamp
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestParse_TellsNullFromEmpty(t *testing.T) {
	for _, c := range []struct {
		line           string
		keyNil, valNil bool
	}{
		{`{}`, true, true},
		{`{"key":null,"value":null}`, true, true},
		{`{"key":"","value":""}`, false, false},
		{`{"key_base64":"","value_base64":""}`, false, false},
		{`{"value":""}`, true, false},
	} {
		r := parse(t, c.line)
		if (r.Key == nil) != c.keyNil || (r.Value == nil) != c.valNil || len(r.Key)+len(r.Value) > 0 {
			t.Errorf("%s: key %#v, value %#v", c.line, r.Key, r.Value)
		}
	}
}

func TestParse_TakesTheOtherForms(t *testing.T) {
	r := parse(t, `{"key_base64":"/wA=","value_base64":"AAH/","timestamp":1700000000123,"topic":"x","offset":12,`+
		`"headers":[{"key":"h","value":"1"},{"key":"h","value_base64":"/w=="},{"key_base64":"/w==","value":null},{"key":"n"}]}`)
	want := []domain.Header{{Key: "h", Value: []byte("1")}, {Key: "h", Value: []byte{0xff}}, {Key: "\xff"}, {Key: "n"}}
	if string(r.Key) != "\xff\x00" || string(r.Value) != "\x00\x01\xff" || !reflect.DeepEqual(r.Headers, want) {
		t.Errorf("got %+v", r)
	}
	if r.Timestamp.UnixMilli() != 1700000000123 || r.Topic != "" {
		t.Errorf("timestamp %s, topic %q", r.Timestamp, r.Topic)
	}
	if _, explicit := parse(t, `{"partition":null,"timestamp":null,"headers":null}`).Partition.Explicit(); explicit {
		t.Error("partition null is taken as a partition")
	}
}

func TestParse_RefusesWithTheColumn(t *testing.T) {
	for line, want := range map[string]string{
		``:                                     "want an object",
		`null`:                                 "want an object",
		`[]`:                                   "want an object",
		`"x"`:                                  "want an object",
		`{`:                                    "want a string",
		`{"value":"x"`:                         "want , or }",
		`{"value":"x",}`:                       "want a string",
		`{"value" "x"}`:                        "want :",
		`{"value":"x"}{}`:                      "text after",
		`{"value":"x"} y`:                      "text after",
		`{"value":1}`:                          "want a string",
		`{"value":"x`:                          "without an end",
		`{"value":"x\`:                         "without an end",
		`{"value":"\q"}`:                       "unknown escape",
		`{"value":"\u12"}`:                     "four hex digits",
		`{"value":"\ud800"}`:                   "surrogate",
		`{"value":"\ud800\u0041"}`:             "surrogate",
		`{"value":"\udc00\ud800"}`:             "surrogate",
		"{\"value\":\"a\tb\"}":                 "control character",
		"{\"value\":\"\xff\"}":                 "not UTF-8",
		"{\"value\":\"\\n\xff\"}":              "not UTF-8",
		`{"Value":"x"}`:                        "unknown field",
		`{"vlaue":"x"}`:                        "unknown field",
		`{"value":"x","value":"y"}`:            "value is given twice",
		`{"key":"x","key_base64":"y"}`:         "key is given twice",
		`{"key_base64":"?"}`:                   "base64",
		`{"key_base64":"YQ"}`:                  "base64",
		`{"key_base64":"Y\nQ=="}`:              "line ends",
		`{"key_base64":null}`:                  "want a string",
		`{"partition":-1}`:                     "0 or more",
		`{"partition":2147483648}`:             "0 or more",
		`{"partition":1.5}`:                    "whole number",
		`{"partition":1e2}`:                    "whole number",
		`{"partition":01}`:                     "whole number",
		`{"partition":"1"}`:                    "whole number",
		`{"timestamp":"yesterday"}`:            "RFC 3339",
		`{"timestamp":"0001-01-01T00:00:00Z"}`: "want a later one",
		`{"timestamp":99999999999999999999}`:   "whole number",
		`{"timestamp":true}`:                   "whole number",
		`{"headers":"x"}`:                      "object or a list",
		`{"headers":{"a":1}}`:                  "want a string",
		`{"headers":[{"value":"x"}]}`:          "without a key",
		`{"headers":[{"key":null}]}`:           "must not be null",
		`{"headers":[{"key":"a","nope":"x"}]}`: "unknown header field",
		`{"headers":[{"key":"a","key_base64":""}]}`: "header has two",
		`{"headers":[{"key":"a"}`:                   "want , or ]",
		`{"topic":1}`:                               "want a string",
		`{"offset":"1"}`:                            "whole number",
	} {
		var r domain.Record
		err := new(Parser).Parse([]byte(line), &r)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || !strings.Contains(err.Error(), want) || syntax.Column < 1 || syntax.Column > len(line)+1 {
			t.Errorf("%q: error is %v, want %q", line, err, want)
		}
	}
}

func TestParse_AllocatesNothingForPlainRecords(t *testing.T) {
	var p Parser
	var r domain.Record
	line := []byte(`{"key":"user123","value":"signed\nup","partition":3,"timestamp":1700000000123}`)
	allocs := testing.AllocsPerRun(100, func() {
		if err := p.Parse(line, &r); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 2 {
		t.Errorf("%v allocations a record", allocs)
	}
}

func TestAppendJSON_WritesWhatTheContractSays(t *testing.T) {
	at := time.UnixMilli(1700000000123)
	for _, c := range []struct {
		m    domain.Message
		want string
	}{
		{
			domain.Message{Topic: "orders", Partition: 2, Offset: 41, Timestamp: at, Key: []byte("k"), Value: []byte("v")},
			`{"topic":"orders","partition":2,"offset":41,"timestamp":"2023-11-14T22:13:20.123Z","key":"k","value":"v","headers":{}}`,
		},
		{
			domain.Message{Topic: "t", Timestamp: at, Value: []byte{0xff}, Headers: []domain.Header{{Key: "a", Value: []byte("1")}, {Key: "b"}}},
			`{"topic":"t","partition":0,"offset":0,"timestamp":"2023-11-14T22:13:20.123Z","key":null,"value_base64":"/w==","headers":{"a":"1","b":null}}`,
		},
		{
			domain.Message{Topic: "t", Timestamp: at, Key: []byte{}, Headers: []domain.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte{0xfe}}}},
			`{"topic":"t","partition":0,"offset":0,"timestamp":"2023-11-14T22:13:20.123Z","key":"","value":null,"headers":[{"key":"a","value":"1"},{"key":"a","value_base64":"/g=="}]}`,
		},
	} {
		if got := string(AppendJSON(nil, &c.m)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestAppendJSON_HoldsNoControlCharacters(t *testing.T) {
	value := []byte("\x00\x1b[31m\x7f\u0080\u009b\u00a0é\u2028")
	line := AppendJSON(nil, &domain.Message{Value: value, Timestamp: time.UnixMilli(0)})
	for _, r := range string(line) {
		if r < ' ' || r >= 0x7f && r <= 0x9f {
			t.Errorf("%q holds %U", line, r)
		}
	}
	if got := parse(t, string(line)); string(got.Value) != string(value) {
		t.Errorf("came back as %q", got.Value)
	}
}

// roundTrip writes m and reads it back.
func roundTrip(t *testing.T, m domain.Message) {
	t.Helper()
	line := AppendJSON(nil, &m)
	if !json.Valid(line) {
		t.Fatalf("not JSON: %q", line)
	}
	got := parse(t, string(line))
	if !same(got.Key, m.Key) || !same(got.Value, m.Value) {
		t.Errorf("%q: key %q, value %q", line, got.Key, got.Value)
	}
	if p, explicit := got.Partition.Explicit(); !explicit || p != m.Partition {
		t.Errorf("%q: partition %v", line, got.Partition)
	}
	if got.Timestamp.UnixMilli() != m.Timestamp.UnixMilli() {
		t.Errorf("%q: timestamp %s, want %s", line, got.Timestamp, m.Timestamp)
	}
	if len(got.Headers) != len(m.Headers) {
		t.Fatalf("%q: %d headers", line, len(got.Headers))
	}
	for i, h := range m.Headers {
		if got.Headers[i].Key != h.Key || !same(got.Headers[i].Value, h.Value) {
			t.Errorf("%q: header %d is %q", line, i, got.Headers[i])
		}
	}
}

func same(a, b []byte) bool { return string(a) == string(b) && (a == nil) == (b == nil) }

func TestJSON_RoundTripsManyHeaders(t *testing.T) {
	var headers []domain.Header
	for i := range 20 {
		headers = append(headers, domain.Header{Key: strings.Repeat("h", i), Value: []byte{byte('a' + i)}})
	}
	roundTrip(t, domain.Message{Headers: headers, Timestamp: time.UnixMilli(1)})
	roundTrip(t, domain.Message{Headers: append(headers, headers[3]), Timestamp: time.UnixMilli(1)})
}

func FuzzJSON_RoundTrips(f *testing.F) {
	f.Add([]byte("key"), []byte("value"), "h", []byte("1"), "h", uint8(0), int32(3), int64(1700000000123))
	f.Add([]byte{0xff}, []byte{}, "", []byte{0}, "\xfe", uint8(255), int32(0), int64(math.MaxInt64/2000000))
	f.Fuzz(func(t *testing.T, key, value []byte, h1 string, hv []byte, h2 string, nils uint8, partition int32, ms int64) {
		at := time.UnixMilli(ms)
		if at.IsZero() || at.UnixMilli() != ms || partition < 0 {
			return
		}
		m := domain.Message{Topic: "t", Partition: domain.PartitionID(partition), Timestamp: at, Key: key, Value: value}
		m.Headers = []domain.Header{{Key: h1, Value: hv}, {Key: h2, Value: value}}
		for i, b := range []*[]byte{&m.Key, &m.Value, &m.Headers[0].Value, &m.Headers[1].Value} {
			if nils&(1<<i) != 0 {
				*b = nil
			} else if *b == nil {
				*b = []byte{}
			}
		}
		if nils&16 != 0 {
			m.Headers = nil
		}
		roundTrip(t, m)
	})
}

// FuzzParse compares with encoding/json, which takes more than we do: what we
// take it must take too, and read the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"key":"a","value":"b","headers":{"x":"y"},"partition":1,"timestamp":"2026-01-02T15:04:05Z"}`,
		`{"key_base64":"AA==","headers":[{"key":"a","value":"b"}],"timestamp":12}`,
		`{"value":"\ud83d\ude00\u0000"}`, `{"value":"x"} `, "{\"value\":\"\xc3\x28\"}", `{"offset":0,"topic":"t"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var r domain.Record
		if new(Parser).Parse(line, &r) != nil {
			return
		}
		var reference struct {
			Key, Value         *string
			Key64              []byte `json:"key_base64"`
			Value64            []byte `json:"value_base64"`
			Headers, Timestamp any
			Partition, Offset  *int64
			Topic              *string
		}
		if err := json.Unmarshal(line, &reference); err != nil || !utf8.Valid(line) {
			t.Fatalf("took %q, encoding/json says %v", line, err)
		}
		compare(t, "key", r.Key, reference.Key, reference.Key64)
		compare(t, "value", r.Value, reference.Value, reference.Value64)
		if p, explicit := r.Partition.Explicit(); explicit && (reference.Partition == nil || int64(p) != *reference.Partition) {
			t.Fatalf("partition %d of %q", p, line)
		}
	})
}

func compare(t *testing.T, what string, got []byte, text *string, decoded []byte) {
	t.Helper()
	switch {
	case text != nil && string(got) != *text, text == nil && string(got) != string(decoded):
		t.Fatalf("%s is %q", what, got)
	case got == nil && (text != nil || decoded != nil):
		t.Fatalf("%s is nil", what)
	}
}

func BenchmarkParse(b *testing.B) {
	var p Parser
	var r domain.Record
	line := []byte(`{"key":"user123","value":"{\"event\":\"signed up\",\"plan\":\"free\"}","timestamp":1700000000123}`)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Parse(line, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	m := domain.Message{Topic: "orders", Timestamp: time.UnixMilli(1700000000123), Key: []byte("user123"), Value: []byte(strings.Repeat("value ", 16))}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendJSON(buf[:0], &m)
	}
}
