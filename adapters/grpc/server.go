package grpc

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
)

// Server serves the agent protocol. It must be stopped: by Drain, which loses
// nothing, or by Stop.
type Server struct {
	backend Backend
	cfg     ServerConfig
	began   time.Time
	names   *topicNames
	limiter limiter
	lending lending
	conns   connections
	health  *health.Server
	rpc     *grpcgo.Server

	work     sync.WaitGroup // readers and writers of Produce streams
	draining context.Context
	drain    context.CancelFunc
	unready  atomic.Pointer[error] // why nothing is taken over now

	mu      sync.Mutex // guards streams and counts
	streams map[*producing]struct{}
	counts  Stats
}

// Stats is what a server has done and holds.
type Stats struct {
	// Connections and Streams are open Produce streams and connections.
	Connections, Streams int
	// HeldBytes is what is taken over and not settled, FetchBytes what fetches
	// may hold: what is being read, not sent, or may come to those that wait.
	HeldBytes, FetchBytes int64
	// Batches counts those taken over and BatchBytes their bytes, Refused those
	// that were not, Cut the Produce streams that were ended because of what the client did.
	Batches, BatchBytes, Refused, Cut int64
	// Bad counts the calls and batches that no client of ours makes, or that their
	// caller may not make.
	Bad int64
}

// NewServer makes a Server in front of b. *domain.ConfigError: something is
// missing or cannot be used; every fault is in the error.
func NewServer(b Backend, cfg ServerConfig) (*Server, error) {
	if err := errors.Join(b.validate(), cfg.Validate()); err != nil {
		return nil, err
	}
	s := &Server{
		backend: b, cfg: cfg, began: time.Now(), names: newTopicNames(b.Topics), health: health.NewServer(),
		streams: make(map[*producing]struct{}),
	}
	s.limiter.cfg, s.limiter.topics = &s.cfg, make(map[domain.TopicID]int64)
	s.lending = newLending(cfg.FetchTotalBytes)
	s.conns.complaints.log, s.conns.complaints.every = cfg.Log, cfg.ComplainEvery
	s.draining, s.drain = context.WithCancel(context.Background())
	s.rpc = grpcgo.NewServer(s.options()...)
	s.rpc.RegisterService(logDescription(), &logService{s: s})
	agentv1.RegisterTopicServiceServer(s.rpc, &topicService{topics: b.Topics})
	agentv1.RegisterProducerServiceServer(s.rpc, &producerService{producers: b.Producers})
	agentv1.RegisterAgentServiceServer(s.rpc, &agentService{s: s})
	grpc_health_v1.RegisterHealthServer(s.rpc, s.health)
	if cfg.Reflection {
		reflection.Register(s.rpc)
	}
	return s, nil
}

func (s *Server) options() []grpcgo.ServerOption {
	o := []grpcgo.ServerOption{
		grpcgo.ForceServerCodecV2(newCodec()),
		grpcgo.StatsHandler(&s.conns),
		grpcgo.UnaryInterceptor(s.unary),
		grpcgo.StreamInterceptor(s.stream),
		grpcgo.MaxRecvMsgSize(largestMessage),
		grpcgo.MaxSendMsgSize(largestMessage + largestBatch),
		grpcgo.MaxConcurrentStreams(uint32(s.cfg.MaxStreams)),
		grpcgo.MaxHeaderListSize(headerBytes),
		grpcgo.ConnectionTimeout(10 * time.Second),
		grpcgo.ReadBufferSize(socketBuffer),
		grpcgo.WriteBufferSize(socketBuffer),
		grpcgo.StaticStreamWindowSize(streamWindow),
		grpcgo.StaticConnWindowSize(connWindow),
		grpcgo.WaitForHandlers(true),
		grpcgo.KeepaliveParams(keepalive.ServerParameters{Time: s.cfg.KeepaliveTime, Timeout: s.cfg.KeepaliveTimeout}),
		grpcgo.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: s.cfg.KeepaliveMinimum, PermitWithoutStream: true}),
	}
	if s.cfg.TLS != nil {
		o = append(o, grpcgo.Creds(credentials.NewTLS(s.cfg.TLS)))
	}
	return o
}

// Serve takes connections from l until the server is drained or stopped, and
// then returns nil. It closes l. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	err := s.rpc.Serve(&listener{l, &s.conns.open, int64(s.cfg.MaxConnections)})
	if errors.Is(err, grpcgo.ErrServerStopped) {
		return nil
	}
	return err
}

// SetReady says whether the server can do its work: with a reason it cannot.
// Then health checks fail, and calls and batches are refused before they are taken over, so
// that clients go to another agent.
func (s *Server) SetReady(reason error) {
	status := grpc_health_v1.HealthCheckResponse_SERVING
	if reason != nil {
		status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		s.unready.Store(&reason)
	} else {
		s.unready.Store(nil)
	}
	s.health.SetServingStatus("", status)
}

// notReady returns the error of what is refused because of SetReady.
func (s *Server) notReady() error {
	if reason := s.unready.Load(); reason != nil {
		return notReady((*reason).Error())
	}
	return nil
}

// Drain ends the server without loss: health checks fail, no connection and no
// call is taken any more, clients are told to go elsewhere, waiting fetches are answered. What
// was taken over is finished and answered. It returns nil once all that is done and nobody is
// connected; if ctx ends first it stops the server and returns the context's error.
func (s *Server) Drain(ctx context.Context) error {
	s.health.Shutdown()
	s.drain()
	s.mu.Lock()
	for st := range s.streams {
		st.tellDraining()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.rpc.GracefulStop()
	}()
	select {
	case <-done:
		s.work.Wait()
		return nil
	case <-ctx.Done():
		s.Stop()
		<-done
		return context.Cause(ctx)
	}
}

// Stop ends every connection and call at once. What was taken over is withdrawn
// unless its commit has begun; nobody is told.
func (s *Server) Stop() {
	s.drain()
	s.rpc.Stop()
	s.work.Wait()
}

// Stats returns what the server has done so far and holds now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Streams = len(s.streams)
	c.Connections = int(s.conns.open.Load())
	c.Bad = s.conns.complaints.bad.Load()
	c.HeldBytes, c.FetchBytes = s.limiter.held(), s.lending.used()
	return c
}

// unary checks who calls, bounds the call's time, and gives errors their status.
func (s *Server) unary(ctx context.Context, req any, info *grpcgo.UnaryServerInfo, handle grpcgo.UnaryHandler) (any, error) {
	ctx, r, err := s.enter(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if err := s.notReady(); err != nil && !r.always {
		return nil, statusOf(err)
	}
	limit := s.cfg.MaxTimeout
	if _, ok := ctx.Deadline(); !ok {
		limit = s.cfg.DefaultTimeout + s.cfg.FetchMaxWait
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if a := accessOf(ctx); a != nil && r.check != nil {
		if err := r.check(ctx, a, req); err != nil {
			return nil, statusOf(err)
		}
	}
	answer, err := handle(ctx, req)
	return answer, statusOf(err)
}

// stream checks who calls.
func (s *Server) stream(srv any, stream grpcgo.ServerStream, info *grpcgo.StreamServerInfo, handle grpcgo.StreamHandler) error {
	ctx, _, err := s.enter(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	if info.FullMethod != agentv1.LogService_Produce_FullMethodName {
		// Watchers of health go at once; only Produce has something to finish.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.draining, cancel)()
	}
	return statusOf(handle(srv, &enteredStream{stream, ctx}))
}

// enteredStream is a stream whose context says what the caller may touch.
type enteredStream struct {
	grpcgo.ServerStream
	ctx context.Context
}

func (s *enteredStream) Context() context.Context { return s.ctx }
