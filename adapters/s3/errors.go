package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// call is what was asked of the server.
type call struct {
	op     string // for the error: "put object segments/0f/0190..."
	verb   string // "write", "read", "list", "delete": what the credentials must allow
	effect bool   // the call may change something, unlike a read
}

// Codes of the server's answers that decide more than their status does.
const (
	codeNoSuchKey    = "NoSuchKey"
	codeNoSuchBucket = "NoSuchBucket"
	codeSkewed       = "RequestTimeTooSkewed"
	codeSlowDown     = "SlowDown"
)

// answer is what the server said. Status 0: it said nothing that is known.
type answer struct {
	status  int
	code    string // "" if it is no answer of an S3 server
	message string
	region  string // where the bucket is, if the answer tells
}

// answerOf takes the server's answer out of an error of the SDK.
func answerOf(err error) answer {
	var (
		a    answer
		resp *smithyhttp.ResponseError
		api  smithy.APIError
	)
	if errors.As(err, &resp) && resp.Response != nil && resp.Response.Response != nil {
		a.status = resp.HTTPStatusCode()
		a.region = resp.Response.Header.Get("X-Amz-Bucket-Region")
	}
	if errors.As(err, &api) && a.status >= http.StatusMultipleChoices {
		a.code, a.message = api.ErrorCode(), api.ErrorMessage()
		if text := http.StatusText(a.status); a.code == "UnknownError" || a.message == text && a.code == strings.ReplaceAll(text, " ", "") {
			a.code, a.message = "", "" // the SDK's words: there was no code
		}
	}
	if m := expectedRegion.FindStringSubmatch(a.message); a.region == "" && m != nil {
		a.region = m[1]
	}
	return a
}

// fail turns a failure of the SDK into the port's error; sent tells whether any
// of the request has left. See the table of the package.
func (s *Store) fail(ctx context.Context, c call, err error, sent bool) error {
	if ctx.Err() != nil {
		return s.endedError(ctx, c, sent)
	}
	a := answerOf(err)
	kind := c.kindOf(a, err, sent)
	switch {
	case a.status == http.StatusPreconditionFailed && c.verb == "write":
		return ports.StorageError(c.op, ports.Definite, ports.ErrObjectExists)
	case a.status == http.StatusNotFound && a.code == codeNoSuchKey:
		return ports.StorageError(c.op, ports.Definite, ports.ErrObjectNotFound)
	}
	return ports.StorageError(c.op, kind, &failure{s.sentence(c, a, err), a})
}

// failure is what went wrong, in one sentence that says what to do about it.
type failure struct {
	sentence string
	answer   answer
}

func (e *failure) Error() string { return e.sentence }

// endedError says that the call was over before its end.
func (s *Store) endedError(ctx context.Context, c call, sent bool) error {
	kind := ports.Transient
	if c.effect && sent {
		kind = ports.Ambiguous
	}
	err := ctx.Err()
	if s.life.Err() != nil {
		err = fmt.Errorf("%w: %w", domain.ErrClosed, err)
	}
	return ports.StorageError(c.op, kind, err)
}

// kindOf implements the table of the package.
func (c call) kindOf(a answer, err error, sent bool) ports.Kind {
	unclear := ports.Transient
	if c.effect {
		unclear = ports.Ambiguous
	}
	switch {
	case a.status == 0 && untrusted(err):
		return ports.Definite
	case a.status == 0 && !sent:
		return ports.Transient
	case a.status < http.StatusMultipleChoices:
		return unclear
	case a.status == http.StatusConflict:
		return conflict(a)
	case transientCodes[a.code] && a.status < http.StatusInternalServerError,
		a.status == http.StatusTooManyRequests,
		a.status == http.StatusTemporaryRedirect:
		return ports.Transient
	case a.status == http.StatusRequestTimeout:
		return unclear
	case a.status == http.StatusNotFound && a.code == "" && !c.effect:
		return ports.Transient // somebody between us and the store
	case a.status < http.StatusInternalServerError, a.status == http.StatusNotImplemented:
		return ports.Definite
	default:
		return unclear
	}
}

// transientCodes are refusals with a status below 500 after which the same
// request may succeed: nothing of it was stored.
var transientCodes = map[string]bool{
	codeSkewed:  true,
	"BadDigest": true, "IncompleteBody": true, "RequestTimeout": true, "XAmzContentChecksumMismatch": true,
}

// conflict tells a race, which ends, from a key that cannot be.
func conflict(a answer) ports.Kind {
	switch a.code {
	case "", "ConditionalRequestConflict", "OperationAborted":
		return ports.Transient
	default:
		return ports.Definite
	}
}

// isRace reports whether a Put lost to another one that was not finished yet.
func isRace(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.answer.status == http.StatusConflict && conflict(f.answer) == ports.Transient
}

// oddError is an answer that does not fit the question: no answer, then.
func (c call) oddError(format string, args ...any) error {
	kind := ports.Transient
	if c.effect {
		kind = ports.Ambiguous
	}
	return ports.StorageError(c.op, kind, fmt.Errorf("the store's answer makes no sense: "+format, args...))
}

func closedError(op string) error { return fmt.Errorf("%s: %w", op, domain.ErrClosed) }
