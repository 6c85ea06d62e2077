package s3

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"

	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// expectedRegion finds the right region in what Amazon says about a wrong one.
var expectedRegion = regexp.MustCompile(`expecting '([a-z0-9-]{1,63})'`)

// sentence says what went wrong and what to do about it. It holds no secret: of
// what the server says it takes the code, and the message only if the code says nothing to us.
func (s *Store) sentence(c call, a answer, err error) string {
	if a.status == 0 {
		return s.silence(err)
	}
	head := fmt.Sprintf("%s answered %s", s.place(), a)
	if tail := s.remedy(c, a); tail != "" {
		return head + ": " + tail
	}
	if a.status < http.StatusMultipleChoices {
		return head + " with a body that cannot be read: " + innermost(err)
	}
	if a.message != "" && a.code != a.message {
		return fmt.Sprintf("%s: %.200q", head, a.message)
	}
	return head
}

// String is "403 AccessDenied".
func (a answer) String() string {
	return strings.TrimSpace(fmt.Sprintf("%d %.80s", a.status, cmp.Or(a.code, http.StatusText(a.status))))
}

// place names the server as the user has configured it.
func (s *Store) place() string {
	if s.cfg.Endpoint != "" {
		return s.cfg.Endpoint
	}
	return "S3 in " + s.region
}

// rights are the permissions that the calls need. Without that to list, Amazon
// says of a missing object that it may not be read.
var rights = map[string]string{
	"write": "s3:PutObject", "read": "s3:GetObject and s3:ListBucket", "list": "s3:ListBucket", "delete": "s3:DeleteObject",
}

// remedy explains an answer whose code is known.
func (s *Store) remedy(c call, a answer) string {
	switch a.code {
	case codeNoSuchBucket:
		return fmt.Sprintf("there is no bucket %q: create it, or name another one", s.cfg.Bucket)
	case "InvalidBucketName":
		return fmt.Sprintf("%q cannot be a bucket: name another one", s.cfg.Bucket)
	case "InvalidAccessKeyId", "XAdminUserNotFound", "XAdminNoSuchUser":
		return "it does not know the access key: check AWS_ACCESS_KEY_ID, or which profile or role the AWS default chain gives"
	case "SignatureDoesNotMatch":
		return "the secret does not belong to the access key: check AWS_SECRET_ACCESS_KEY, or the profile"
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired":
		return "the session token has expired or is not valid: renew the credentials"
	case "AccessDenied", "AllAccessDisabled", "AccountProblem":
		return fmt.Sprintf("the credentials may not %s there: grant them %s on bucket %q", c.verb, rights[c.verb], s.cfg.Bucket)
	case codeSkewed:
		return "the clock of this machine and the server's are too far apart: set it by NTP"
	case codeSlowDown:
		return "too many requests: it is tried again later, and other prefixes of the bucket share the load"
	}
	return s.remedyOfStatus(c, a)
}

func (s *Store) remedyOfStatus(c call, a answer) string {
	wrongRegion := a.code == "AuthorizationHeaderMalformed" || a.code == "IllegalLocationConstraintException" || a.code == "PermanentRedirect"
	switch {
	case (wrongRegion || a.status == http.StatusMovedPermanently || a.status == http.StatusBadRequest && a.code == "") && a.region != "" && a.region != s.region:
		return fmt.Sprintf("bucket %q is in region %s and not in %s: set region=%s", s.cfg.Bucket, a.region, s.region, a.region)
	case wrongRegion:
		return fmt.Sprintf("bucket %q is not in region %s, or not at this endpoint: set region= to where it is", s.cfg.Bucket, s.region)
	case a.status == http.StatusNotImplemented:
		return "it cannot do what is asked, a PUT with If-None-Match and CRC32C, a ranged GET or a paged LIST: use a server that can"
	case a.status == http.StatusMethodNotAllowed:
		return "it does not allow this on that address: check that the endpoint is that of an S3 server and the bucket is right"
	case a.status/100 == 3:
		return "it redirects elsewhere, which is not followed: set endpoint= to where the bucket is"
	case a.status == http.StatusBadRequest && strings.HasPrefix(s.cfg.Endpoint, "http://") && a.code == "":
		return "that is no answer of an S3 server: if it wants TLS, write endpoint=https://"
	case a.status == http.StatusForbidden && a.code == "":
		return fmt.Sprintf("the credentials may not %s there, or somebody between refuses: check them, and that they have %s on bucket %q", c.verb, rights[c.verb], s.cfg.Bucket)
	case a.status == http.StatusNotFound && a.code == "":
		return "that is no answer of an S3 server: check the endpoint"
	default:
		return ""
	}
}

// untrusted reports whether the server could not prove who it is, or speaks no
// TLS at all.
func untrusted(err error) bool {
	var (
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
	)
	return errors.As(err, &certificate) || errors.As(err, &record) || plainAnswer(err)
}

func plainAnswer(err error) bool {
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// silence explains why there was no answer.
func (s *Store) silence(err error) string {
	var (
		name    *net.DNSError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		wait    net.Error
	)
	switch place := s.place(); {
	case errors.As(err, &record), plainAnswer(err):
		return place + " speaks no TLS: write endpoint=http://, or enable TLS there"
	case errors.As(err, &unknown):
		return "the certificate of " + place + " comes from an authority that this machine does not trust: add it to the system's, or name its file in AWS_CA_BUNDLE"
	case errors.As(err, &host):
		return "the certificate of " + place + " is for another host name: use the name it is for as endpoint"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate of " + place + " has expired or is not valid yet: renew it, and check this machine's clock"
	case untrusted(err):
		return "the certificate of " + place + " is not valid: " + innermost(err)
	case errors.As(err, &name):
		return fmt.Sprintf("%s cannot be reached, for there is no address for %q: check the endpoint, the region and the name server", place, name.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return place + " cannot be reached, for nothing listens there: check the endpoint, and that the server runs"
	case errors.As(err, &wait) && wait.Timeout():
		return fmt.Sprintf("%s did not answer in time: check the network, or raise stall_timeout (%v)", place, s.cfg.StallTimeout)
	default:
		return fmt.Sprintf("no answer from %s: %s", place, innermost(err))
	}
}

// innermost is the text of the cause, without what the SDK says around it.
func innermost(err error) string {
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) && send.Err != nil {
		err = send.Err
	} else {
		for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
			err = next
		}
	}
	return fmt.Sprintf("%.300s", strings.Join(strings.Fields(err.Error()), " "))
}
