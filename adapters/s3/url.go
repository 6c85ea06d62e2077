package s3

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

// urlForm is what ParseURL takes, as its errors say it.
const urlForm = "s3://BUCKET[/PREFIX][?name=value&name=value]"

// The parameters of a URL.
const (
	parameterEndpoint     = "endpoint"
	parameterPathStyle    = "path_style"
	parameterRegion       = "region"
	parameterStallTimeout = "stall_timeout"
	parameterSkipProbe    = "unsafe_skip_probe"
)

var parameters = []string{parameterEndpoint, parameterPathStyle, parameterRegion, parameterStallTimeout, parameterSkipProbe}

// ParseURL reads the configuration that a URL describes:
//
//	s3://BUCKET[/PREFIX][?endpoint=URL&path_style=true&region=R&stall_timeout=30s&unsafe_skip_probe=true]
//
// With an endpoint, path_style is true unless the URL says otherwise. Everything else is a
// *domain.ConfigError, all of them joined, that lists what there is. Errors quote nothing that
// may be a secret; there is no place for credentials in the URL.
func ParseURL(location string) (Config, error) {
	scheme, rest, found := strings.Cut(location, "://")
	if !found || scheme != "s3" {
		return Config{}, urlError("not of this form", urlForm)
	}
	path, query, _ := strings.Cut(rest, "?")
	authority, prefix, _ := strings.Cut(path, "/")
	if strings.Contains(authority, "@") {
		return Config{}, urlError("with a user or a password", "no credentials in the URL: "+howToGiveCredentials)
	}
	given, err := url.ParseQuery(query)
	if err != nil || strings.Contains(rest, "#") {
		return Config{}, urlError("with parameters that cannot be read", urlForm+", special characters written as %XX")
	}
	cfg := DefaultConfig(authority)
	cfg.Prefix = strings.TrimSuffix(prefix, "/")
	cfg.PathStyle = given.Has(parameterEndpoint)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(given)) {
		errs = append(errs, cfg.set(name, given[name]))
	}
	if err := errors.Join(append(errs, cfg.Validate())...); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// howToGiveCredentials is the end of every sentence about missing or misplaced
// credentials.
const howToGiveCredentials = "give them to the AWS default credential chain, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
	"a profile in the shared files, or a role of the machine"

func urlError(value, want string) error {
	return &domain.ConfigError{Field: "segment store URL", Value: value, Want: want}
}

// set takes over one parameter.
func (c *Config) set(name string, values []string) error {
	if len(values) != 1 {
		return parameterError(name, "given "+strconv.Itoa(len(values))+" times", "it once")
	}
	var err error
	switch value := values[0]; name {
	case parameterEndpoint:
		c.Endpoint = value
		if value == "" {
			err = parameterError(name, "empty", "a URL such as http://127.0.0.1:9000")
		}
	case parameterRegion:
		c.Region = value
		if value == "" {
			err = parameterError(name, "empty", "a region such as eu-central-1")
		}
	case parameterPathStyle:
		c.PathStyle, err = boolean(name, value)
	case parameterSkipProbe:
		c.UnsafeSkipConditionalPutProbe, err = boolean(name, value)
	case parameterStallTimeout:
		if c.StallTimeout, err = time.ParseDuration(value); err != nil {
			c.StallTimeout = DefaultConfig("").StallTimeout // one error is enough
			err = parameterError(name, fmt.Sprintf("%.80q", value), "a duration such as 30s")
		}
	default:
		err = unknownParameter(name)
	}
	return err
}

func boolean(name, value string) (bool, error) {
	if value != "true" && value != "false" {
		return false, parameterError(name, fmt.Sprintf("%.80q", value), "true or false")
	}
	return value == "true", nil
}

// unknownParameter says what there is, and to who tries to hand over a secret,
// where it belongs.
func unknownParameter(name string) error {
	want := strings.Join(parameters, ", ")
	lower := strings.ToLower(name)
	for _, word := range []string{"key", "secret", "token", "password", "credential"} {
		if strings.Contains(lower, word) {
			want += "; credentials are not part of the URL: " + howToGiveCredentials
			break
		}
	}
	return &domain.ConfigError{Field: "segment store parameter", Value: fmt.Sprintf("%.80q", name), Want: want}
}

func parameterError(name, value, want string) error {
	return &domain.ConfigError{Field: "segment store parameter " + name, Value: value, Want: want}
}
