package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is one way in which a request fails. Make it with the functions below.
type Fault struct {
	name string
	act  func(*exchange)
}

// Name is what the fault is counted by.
func (f Fault) Name() string { return f.name }

// codes are the words that S3 has for an answer.
var codes = map[int]string{
	http.StatusForbidden:           "AccessDenied",
	http.StatusNotFound:            "NoSuchKey",
	http.StatusConflict:            "ConditionalRequestConflict",
	http.StatusPreconditionFailed:  "PreconditionFailed",
	http.StatusTooManyRequests:     "TooManyRequests",
	http.StatusInternalServerError: "InternalError",
	http.StatusServiceUnavailable:  "SlowDown",
}

// Answer answers with the status, and S3's error document, instead of asking
// the server: the request has no effect.
func Answer(status int) Fault {
	return Fault{"answer " + strconv.Itoa(status), func(e *exchange) {
		_, _ = io.Copy(io.Discard, e.request.Body) // else the client may see a broken connection instead
		e.fail(status)
	}}
}

// AnswerAfter answers with the status although the server has done what was
// asked.
func AnswerAfter(status int) Fault {
	return Fault{"answer " + strconv.Itoa(status) + " after", func(e *exchange) {
		e.lose(func() { e.fail(status) })
	}}
}

// Reset resets the connection before the server hears of the request.
func Reset() Fault { return Fault{"reset", (*exchange).reset} }

// ResetAfter resets the connection when the server has done what was asked.
func ResetAfter() Fault {
	return Fault{"reset after", func(e *exchange) { e.lose(e.reset) }}
}

// Delay asks the server later. A client that gives up meanwhile has asked nothing.
func Delay(d time.Duration) Fault {
	return Fault{"delay", func(e *exchange) {
		// Only with the whole body read does a server see its client go.
		if !e.swallow() || !e.wait(e.request.Context(), d) {
			e.reset()
			return
		}
		e.forward(nil)
	}}
}

// Straggle asks the server later even if the client gives up meanwhile: its
// request has an effect at a time when it has long been tried again.
func Straggle(d time.Duration) Fault {
	return Fault{"straggle", func(e *exchange) {
		if !e.swallow() || !e.wait(e.proxy.ended, d) {
			e.reset()
			return
		}
		e.request = e.request.WithContext(context.WithValue(e.proxy.ended, exchangeKey{}, e))
		e.forward(nil)
	}}
}

// DelayAfter lets the server do what was asked, and its answer wait.
func DelayAfter(d time.Duration) Fault {
	return Fault{"delay after", func(e *exchange) {
		e.forward(func(*http.Response) error {
			if !e.wait(e.request.Context(), d) {
				return errors.New("nobody waits for the answer any more")
			}
			return nil
		})
	}}
}

// Truncate breaks the connection after n bytes of the answer's body. Its length
// was announced, so a client can see that bytes are missing. A body that is no longer is reset.
func Truncate(n int) Fault {
	return Fault{"truncate", func(e *exchange) {
		e.forward(func(answer *http.Response) error {
			whole, err := io.ReadAll(answer.Body)
			if err != nil {
				return err
			}
			if len(whole) <= n {
				return fmt.Errorf("a body of %d bytes cannot be truncated after %d", len(whole), n)
			}
			setLength(answer, int64(len(whole)))
			answer.Body = body{io.MultiReader(bytes.NewReader(whole[:n]), &broken{e.writer}), answer.Body}
			return nil
		})
	}}
}

func setLength(answer *http.Response, n int64) {
	answer.ContentLength = n
	answer.Header.Set("Content-Length", strconv.FormatInt(n, 10))
	answer.TransferEncoding = nil
}

// Shorten ends the answer's body after n bytes as if that were all of it. Only
// who knows how much there must be, or its checksum, can see it.
func Shorten(n int64) Fault {
	return Fault{"shorten", func(e *exchange) {
		e.forward(func(answer *http.Response) error {
			if answer.ContentLength < 0 || answer.ContentLength > n {
				answer.Body = body{io.LimitReader(answer.Body, n), answer.Body}
				setLength(answer, n)
			}
			return nil
		})
	}}
}

// Flip flips the lowest bit of the byte at the offset of the answer's body.
func Flip(at int64) Fault {
	return Fault{"flip", func(e *exchange) {
		e.forward(func(answer *http.Response) error {
			answer.Body = body{&flipper{Reader: answer.Body, left: at}, answer.Body}
			return nil
		})
	}}
}

// IgnoreRange answers a request for a range with the whole object and 200.
func IgnoreRange() Fault {
	return Fault{"ignore range", func(e *exchange) {
		e.request.Header.Del("Range")
		e.forward(nil)
	}}
}

// ShiftRange answers a request for bytes a to b with bytes a+by to b+by, and
// says so in Content-Range.
func ShiftRange(by int64) Fault {
	return Fault{"shift range", func(e *exchange) {
		var from, to int64
		if _, err := fmt.Sscanf(e.request.Header.Get("Range"), "bytes=%d-%d", &from, &to); err == nil {
			e.request.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from+by, to+by))
		}
		e.forward(nil)
	}}
}

// IgnoreIfNoneMatch makes of a put that may not replace an object one that does,
// as servers do that do not know If-None-Match: the object goes first. The header itself cannot be
// taken off, for it is signed. Remove deletes the object of a request's path.
func IgnoreIfNoneMatch(remove func(ctx context.Context, path string) error) Fault {
	return Fault{"ignore if-none-match", func(e *exchange) {
		if e.request.Header.Get("If-None-Match") != "" && (!e.swallow() || remove(e.request.Context(), e.request.URL.Path) != nil) {
			e.reset()
			return
		}
		e.forward(nil)
	}}
}

// body reads from one reader and closes another.
type body struct {
	io.Reader
	io.Closer
}

// broken is the end of a body that breaks off. What came before is sent.
type broken struct{ writer http.ResponseWriter }

func (b *broken) Read([]byte) (int, error) {
	return 0, errors.Join(io.ErrUnexpectedEOF, http.NewResponseController(b.writer).Flush())
}

// flipper flips a bit of the byte that has left bytes before it.
type flipper struct {
	io.Reader
	left int64
}

func (f *flipper) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if f.left >= 0 && f.left < int64(n) {
		p[f.left] ^= 1
	}
	f.left -= int64(n)
	return n, err
}

// document is what S3 says with an error.
func document(status int) string {
	code := codes[status]
	if code == "" {
		code = strings.ReplaceAll(http.StatusText(status), " ", "")
	}
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>" + code + "</Code><Message>made by a test</Message><RequestId>0</RequestId></Error>"
}
