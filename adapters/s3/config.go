package s3

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

// Config says where the bucket is and how to reach it. Start from DefaultConfig.
//
// Credentials are not part of it: they come from the AWS default chain, which is the
// environment, the shared files, the container's or the machine's role, in that order.
type Config struct {
	// Bucket is the name of the bucket. It must exist.
	Bucket string
	// Prefix is put before every key, with a slash between. Default "": none.
	Prefix string
	// Endpoint is the URL of the server, such as "http://127.0.0.1:9000".
	// Default "": Amazon's for the region, or what AWS_ENDPOINT_URL_S3 says.
	Endpoint string
	// Region is where the bucket is. Default "": what the AWS default chain
	// says; if that says nothing, us-east-1 at an Endpoint, and an error without.
	Region string
	// PathStyle puts the bucket into the path, not into the host name, as most
	// servers other than Amazon's want it. Default false.
	PathStyle bool
	// StallTimeout is how long a connection may be without a byte in either
	// direction during a call.
	StallTimeout time.Duration
	// UnsafeSkipConditionalPutProbe makes Open send nothing. In a bucket that
	// ignores If-None-Match two writers can then replace each other's segments. Default false.
	UnsafeSkipConditionalPutProbe bool
}

// DefaultConfig is a bucket at Amazon, in the region of the AWS default chain.
func DefaultConfig(bucket string) Config {
	return Config{Bucket: bucket, StallTimeout: 30 * time.Second}
}

// Bounds of what may be configured.
const (
	// maxPrefixBytes leaves room for the longest key within the 1024 bytes of S3.
	maxPrefixBytes = 512
	// directoryBucket ends the name of a bucket of S3 Express.
	directoryBucket = "--x-s3"
	minStallTimeout = 100 * time.Millisecond
	maxStallTimeout = time.Hour
)

var (
	bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$`)
	prefixName = regexp.MustCompile(`^[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*$`)
	regionName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
)

// Validate reports every field that cannot be used, as *domain.ConfigErrors
// joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, value, want string) {
		errs = append(errs, &domain.ConfigError{Field: "segment store " + field, Value: value, Want: want})
	}
	if !bucketName.MatchString(c.Bucket) {
		bad("bucket", fmt.Sprintf("%.80q", c.Bucket), "the name of a bucket: 3 to 255 letters, digits, dots and dashes")
	}
	if strings.HasSuffix(c.Bucket, directoryBucket) {
		bad("bucket", fmt.Sprintf("%.80q", c.Bucket), "a general purpose bucket: directory buckets do not list in the order of keys")
	}
	if c.Prefix != "" && !validPrefix(c.Prefix) {
		bad("prefix", fmt.Sprintf("%.80q", c.Prefix),
			fmt.Sprintf("at most %d letters, digits and . _ = - in parts between single slashes, none of them . or ..", maxPrefixBytes))
	}
	if c.Endpoint != "" && !validEndpoint(c.Endpoint) {
		bad("endpoint", "not usable", "http://HOST[:PORT] or https://HOST[:PORT], without a user, a path or parameters")
	}
	if c.Region != "" && !regionName.MatchString(c.Region) {
		bad("region", fmt.Sprintf("%.80q", c.Region), "a region such as eu-central-1")
	}
	if c.StallTimeout < minStallTimeout || c.StallTimeout > maxStallTimeout {
		bad("stall_timeout", c.StallTimeout.String(), fmt.Sprintf("%v to %v", minStallTimeout, maxStallTimeout))
	}
	return errors.Join(errs...)
}

func validPrefix(prefix string) bool {
	ok := len(prefix) <= maxPrefixBytes && prefixName.MatchString(prefix)
	for part := range strings.SplitSeq(prefix, "/") {
		ok = ok && part != "." && part != ".."
	}
	return ok
}

func validEndpoint(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil &&
		(u.Path == "" || u.Path == "/") && u.RawQuery == "" && !u.ForceQuery && u.Fragment == ""
}
