package tracing

import (
	"errors"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
)

func TestFromEnv_SendsNothingUnlessThereIsAnEndpoint(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"
	for _, c := range []struct {
		name    string
		environ []string
		want    string
	}{
		{"nothing", nil, ""},
		{"a sampler only", []string{"OTEL_TRACES_SAMPLER=always_on"}, ""},
		{"an empty endpoint", []string{"OTEL_EXPORTER_OTLP_ENDPOINT="}, ""},
		{"an endpoint", []string{endpoint}, "http/protobuf"},
		{"an endpoint of traces", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:4318/v1/traces"}, "http/protobuf"},
		{"grpc", []string{endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, "grpc"},
		{"grpc for others", []string{endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"}, "http/protobuf"},
		{"no exporter", []string{endpoint, "OTEL_TRACES_EXPORTER=none"}, ""},
		{"disabled", []string{endpoint, "OTEL_SDK_DISABLED=true"}, ""},
	} {
		got, err := FromEnv(c.environ, func(error) {})
		if err != nil || got.Protocol != c.want || got.Enabled() != (c.want != "") {
			t.Errorf("%s: protocol %q, %v; want %q", c.name, got.Protocol, err, c.want)
		}
	}
}

func TestFromEnv_RefusesWhatItCannotDo(t *testing.T) {
	for _, pair := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL=http/json", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=x", "OTEL_TRACES_EXPORTER=jaeger"} {
		_, err := FromEnv([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318", pair}, func(error) {})
		var fault *domain.ConfigError
		if !errors.As(err, &fault) || fault.Field+"=" != pair[:len(fault.Field)+1] {
			t.Errorf("%s: %v", pair, err)
		}
	}
}
