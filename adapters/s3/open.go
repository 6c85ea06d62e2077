package s3

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// defaultRegion is what servers other than Amazon's take if nobody has said
// another one to them.
const defaultRegion = "us-east-1"

// Store is a segment store in a bucket.
type Store struct {
	cfg    Config
	region string
	root   string // prefix of all keys: "" or ending in a slash
	client *s3.Client
	wire   *wire
	calls  calls
	// life ends when Close has waited long enough for calls in progress.
	life context.Context
	end  context.CancelFunc
	// patience is that long: closeWait, but in tests.
	patience time.Duration
}

var _ ports.SegmentStore = (*Store)(nil)

// Open opens the store in the bucket that cfg names, and probes it, see Probe.
//
// The error is a *domain.ConfigError, or an *ports.Error that says in one sentence what is
// wrong and how to mend it; it holds no secret.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if cfg.UnsafeSkipConditionalPutProbe {
		return s, nil
	}
	if err := s.Probe(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// open makes a store and finds credentials for it. It asks the bucket nothing.
func open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	op := "open bucket " + cfg.Bucket
	chain, err := config.LoadDefaultConfig(ctx, config.WithLogger(logging.Nop{}))
	if err != nil {
		return nil, ports.StorageError(op, ports.Definite, fmt.Errorf("read the settings of the AWS default chain: %s", innermost(err)))
	}
	s := &Store{cfg: cfg, region: cmp.Or(cfg.Region, chain.Region), patience: closeWait}
	if s.region == "" {
		if cfg.Endpoint == "" && aws.ToString(chain.BaseEndpoint) == "" {
			return nil, &domain.ConfigError{Field: "segment store region", Value: "not known", Want: "region= in the URL, AWS_REGION, or a region in the profile"}
		}
		s.region = defaultRegion
	}
	if cfg.Prefix != "" {
		s.root = cfg.Prefix + "/"
	}
	if err := haveCredentials(ctx, op, chain.Credentials); err != nil {
		return nil, err
	}
	s.wire = newWire(chain.HTTPClient, cfg.StallTimeout)
	s.client = s3.NewFromConfig(chain, s.configure)
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// haveCredentials asks the chain for credentials, so that their lack is told by
// itself and not as a failed call.
func haveCredentials(ctx context.Context, op string, provider aws.CredentialsProvider) error {
	if provider == nil {
		return ports.StorageError(op, ports.Definite, fmt.Errorf("no AWS credentials: %s", howToGiveCredentials))
	}
	_, err := provider.Retrieve(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ports.StorageError(op, ports.Transient, ctx.Err())
	default:
		return ports.StorageError(op, ports.Definite, fmt.Errorf("no AWS credentials (%s): %s", innermost(err), howToGiveCredentials))
	}
}

// configure sets what must not depend on the environment.
func (s *Store) configure(o *s3.Options) {
	o.Region = s.region
	if s.cfg.Endpoint != "" {
		o.BaseEndpoint = aws.String(strings.TrimSuffix(s.cfg.Endpoint, "/"))
	}
	o.UsePathStyle = s.cfg.PathStyle
	o.HTTPClient = s.wire
	o.Retryer = aws.NopRetryer{}
	// Every body carries the CRC32C that we have computed; objects are checked by
	// ours, inside of them. Some servers give the checksum of the whole object with a range.
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	o.Logger = logging.Nop{}
	o.ClientLogMode = 0 // never log a request: its headers are signed
	o.DisableLogOutputChecksumValidationSkipped = true
	// The CRC32C protects the body, and is signed. SHA-256 over it would halve the
	// speed of uploads.
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
}
