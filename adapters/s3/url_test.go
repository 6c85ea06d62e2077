package s3

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

func TestParseURL_ReadsEveryParameter(t *testing.T) {
	at := func(change func(*Config)) Config {
		cfg := DefaultConfig("bucket")
		change(&cfg)
		return cfg
	}
	for url, want := range map[string]Config{
		"s3://bucket":                              at(func(*Config) {}),
		"s3://bucket/":                             at(func(*Config) {}),
		"s3://bucket?":                             at(func(*Config) {}),
		"s3://bucket/a/b.c_d=e":                    at(func(c *Config) { c.Prefix = "a/b.c_d=e" }),
		"s3://bucket/a/":                           at(func(c *Config) { c.Prefix = "a" }),
		"s3://bucket?region=eu-west-1":             at(func(c *Config) { c.Region = "eu-west-1" }),
		"s3://bucket?stall_timeout=5s":             at(func(c *Config) { c.StallTimeout = 5 * time.Second }),
		"s3://bucket?unsafe_skip_probe=true":       at(func(c *Config) { c.UnsafeSkipConditionalPutProbe = true }),
		"s3://bucket?endpoint=http://127.0.0.1:90": at(func(c *Config) { c.Endpoint, c.PathStyle = "http://127.0.0.1:90", true }),
		"s3://bucket?endpoint=https%3A%2F%2Fs3.example.com&path_style=false": at(func(c *Config) { c.Endpoint = "https://s3.example.com" }),
		"s3://bucket/p?endpoint=http://127.0.0.1:9000&path_style=true&region=us-east-1&unsafe_skip_probe=false": at(func(c *Config) {
			c.Prefix, c.Endpoint, c.PathStyle, c.Region = "p", "http://127.0.0.1:9000", true, "us-east-1"
		}),
	} {
		got, err := ParseURL(url)
		if err != nil || got != want {
			t.Errorf("%s is %+v, %v, want %+v", url, got, err, want)
		}
	}
}

func TestParseURL_SaysWhatIsWrongAndQuotesNoSecret(t *testing.T) {
	for _, c := range []struct{ url, says string }{
		{"", "s3://BUCKET"},
		{"bucket", "s3://BUCKET"},
		{"file:dir", "s3://BUCKET"},
		{"s3:bucket", "s3://BUCKET"},
		{"s3://", "bucket"},
		{"s3://x", "3 to 255"},
		{"s3://mine--use1-az4--x-s3", "general purpose bucket"},
		{"s3://buc ket", "3 to 255"},
		{"s3://key:hunter2@bucket", "no credentials in the URL: give them to the AWS default credential chain"},
		{"s3://hunter2@bucket?region=r", "no credentials in the URL"},
		{"s3://bucket?secret_access_key=hunter2", "credentials are not part of the URL"},
		{"s3://bucket?AWS_ACCESS_KEY_ID=hunter2", "AWS default credential chain"},
		{"s3://bucket?regoin=x", "endpoint, path_style, region, stall_timeout, unsafe_skip_probe"},
		{"s3://bucket?region=a&region=b", "given 2 times"},
		{"s3://bucket?region=", "empty"},
		{"s3://bucket?region=Not_A", "a region such as"},
		{"s3://bucket?endpoint=", "empty"},
		{"s3://bucket?endpoint=127.0.0.1:9000", "http://HOST"},
		{"s3://bucket?endpoint=ftp://host", "http://HOST"},
		{"s3://bucket?endpoint=http://me:hunter2@host", "without a user"},
		{"s3://bucket?endpoint=http://host/path", "a path"},
		{"s3://bucket?endpoint=http://host?x=y", "parameters"},
		{"s3://bucket?path_style=yes", "true or false"},
		{"s3://bucket?unsafe_skip_probe=1", "true or false"},
		{"s3://bucket?stall_timeout=soon", "a duration such as"},
		{"s3://bucket?stall_timeout=1ms", "100ms to 1h0m0s"},
		{"s3://bucket?region=%zz", "written as %XX"},
		{"s3://bucket#x", "written as %XX"},
		{"s3://bucket/a//b", "single slashes"},
		{"s3://bucket/../b", ".."},
		{"s3://bucket/a b", "prefix"},
		{"s3://bucket/" + strings.Repeat("p", maxPrefixBytes+1), "at most 512"},
	} {
		_, err := ParseURL(c.url)
		if !errors.Is(err, domain.ErrConfig) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error is %v, want one that says %q", c.url, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error quotes a secret: %v", c.url, err)
		}
	}
}

func TestParseURL_ReportsEveryFaultAtOnce(t *testing.T) {
	_, err := ParseURL("s3://b?region=X&path_style=maybe&what=ever")
	for _, field := range []string{"bucket", "region", "path_style", "what"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("error %v does not name %s", err, field)
		}
	}
}
