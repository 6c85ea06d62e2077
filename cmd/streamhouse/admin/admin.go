// Package admin is the HTTP listener for those who run an agent: is it alive, is
// it ready, what does it measure, where does it spend its time.
//
//	/healthz  200 as long as the process serves
//	/readyz   200 if it would take work, else 503 and why
//	/metrics  Prometheus
//	/status   JSON: what this process is and how its loops are doing
//	/debug/pprof/  profiles, only with a token, and only to who sends it
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of what a peer may take of a listener that serves few.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
	maxRequests   = 16
	gatherTimeout = 10 * time.Second
)

// Config is what a Server serves.
type Config struct {
	// Address is where it listens, such as 127.0.0.1:7071. Port 0 takes a free
	// one.
	Address string
	// Token opens /debug/pprof/ to requests with "Authorization: Bearer TOKEN".
	// Empty: there is no /debug/pprof/.
	Token string
	// Metrics is what /metrics shows.
	Metrics prometheus.Gatherer
	// Ready says why the process takes no work, nil if it does.
	Ready func(context.Context) error
	// Status is what /status shows; it is written as JSON.
	Status func(context.Context) any
}

// Server is a running listener.
type Server struct {
	listener net.Listener
	http     *http.Server
	served   chan error // the end of Serve, once
}

// Start listens and serves until Close.
func Start(cfg Config) (*Server, error) {
	l, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		return nil, err
	}
	s := &Server{listener: l, served: make(chan error, 1), http: &http.Server{
		Handler:           limited(handler(cfg)),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
	}}
	go func() { s.served <- s.http.Serve(l) }()
	return s, nil
}

// Address is where the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Close ends the server; requests in progress end first, as long as ctx allows.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

func handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { answer(w, cfg.Ready(r.Context())) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxRequests, Timeout: gatherTimeout,
	}))
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// Who went away does not get it.
		_ = json.NewEncoder(w).Encode(cfg.Status(r.Context()))
	})
	if cfg.Token != "" {
		mux.Handle("/debug/pprof/", authorized(cfg.Token, profiles()))
	}
	return mux
}

func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", http.NotFound) // the command line may hold secrets
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func answer(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "ok")
}

// authorized lets through who sends the token. Hashes are compared, so that the
// time taken tells nothing of the token, not even its length.
func authorized(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(given))
		if !isBearer || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "want the admin token", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// limited answers 503 to more than maxRequests at the same time.
func limited(next http.Handler) http.Handler {
	slots := make(chan struct{}, maxRequests) // one for each request in progress
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next.ServeHTTP(w, r)
		default:
			http.Error(w, "too many requests", http.StatusServiceUnavailable)
		}
	})
}
