// Package tracing sends the spans of the command to a collector, as the
// environment variables of OpenTelemetry say. Without an endpoint in them there are none.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/streamhouse/streamhouse/domain"
)

// The variables that decide whether there are spans and how they travel. The
// SDK reads the others itself.
const (
	endpointVar       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	tracesEndpointVar = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	protocolVar       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	tracesProtocolVar = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	exporterVar       = "OTEL_TRACES_EXPORTER"
	disabledVar       = "OTEL_SDK_DISABLED"
)

// serviceName is what OTEL_SERVICE_NAME is by default.
const serviceName = "streamhouse"

// closeTimeout bounds how long the last spans take at the end of a command.
const closeTimeout = 5 * time.Second

// Config says whether spans are sent, and how. The zero value sends none.
type Config struct {
	// Protocol is "http/protobuf" or "grpc"; empty sends none.
	Protocol string
	// Failed is told of spans that could not be sent; required with a Protocol.
	Failed func(error)
}

// Enabled reports whether spans are sent.
func (c Config) Enabled() bool { return c.Protocol != "" }

// FromEnv reads the variables of environ, which has the form of os.Environ. A
// *domain.ConfigError names one that cannot be used.
func FromEnv(environ []string, failed func(error)) (Config, error) {
	given := make(map[string]string)
	for _, pair := range environ {
		if name, value, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "OTEL_") && value != "" {
			given[name] = value
		}
	}
	if given[endpointVar] == "" && given[tracesEndpointVar] == "" || strings.EqualFold(given[disabledVar], "true") {
		return Config{}, nil
	}
	switch exporter := given[exporterVar]; exporter {
	case "", "otlp":
	case "none":
		return Config{}, nil
	default:
		return Config{}, &domain.ConfigError{Field: exporterVar, Value: fmt.Sprintf("%.60q", exporter), Want: "otlp or none"}
	}
	c := Config{Protocol: "http/protobuf", Failed: failed}
	for _, name := range []string{protocolVar, tracesProtocolVar} {
		switch protocol := given[name]; protocol {
		case "":
		case "grpc", "http/protobuf":
			c.Protocol = protocol
		default:
			return Config{}, &domain.ConfigError{Field: name, Value: fmt.Sprintf("%.60q", protocol), Want: "http/protobuf or grpc"}
		}
	}
	return c, nil
}

// Provider makes tracers whose sampled spans are sent in batches. It must be
// closed.
type Provider struct{ *sdktrace.TracerProvider }

// Start makes a provider. Nobody needs to listen at the endpoint: spans that
// cannot be sent are dropped, and Failed is told.
func Start(ctx context.Context, c Config, version string) (*Provider, error) {
	exporter, err := newExporter(ctx, c.Protocol)
	if err != nil {
		return nil, err
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName(serviceName), semconv.ServiceVersion(version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, errors.Join(err, exporter.Shutdown(ctx))
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(c.Failed))
	return &Provider{sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))}, nil
}

func newExporter(ctx context.Context, protocol string) (*otlptrace.Exporter, error) {
	if protocol == "grpc" {
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

// Close sends what is left, for as long as ctx allows and at most 5 s. Spans that
// nobody takes are no failure of who made them: Failed is told.
func (p *Provider) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil {
		otel.Handle(err)
	}
	return nil
}
