package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

// openReal opens an empty store at the real server.
func openReal(tb testing.TB) *Store {
	tb.Helper()
	return openWith(tb, realConfig(tb))
}

func openWith(tb testing.TB, cfg Config) *Store {
	tb.Helper()
	s, err := Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func TestStore_KeepsTheContract(t *testing.T) {
	portstest.TestSegmentStore(t, func(t testing.TB) ports.SegmentStore { return openReal(t) })
}

func BenchmarkStore(b *testing.B) {
	portstest.BenchmarkSegmentStore(b, func(b testing.TB) ports.SegmentStore { return openReal(b) })
}

// lossy stands between a store and the real server. While it loses, puts have
// their effect and no answer.
func lossy(t *testing.T, server string, loses *atomic.Bool) string {
	t.Helper()
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		ErrorLog: log.New(io.Discard, "", 0),
		ModifyResponse: func(r *http.Response) error {
			if r.Request.Method == http.MethodPut && loses.Load() {
				panic(http.ErrAbortHandler)
			}
			return nil
		},
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(func() {
		front.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return front.URL
}

func TestStore_FindsAtARealServerWhatItsLostPutHasStored(t *testing.T) {
	var loses atomic.Bool
	cfg := realConfig(t)
	cfg.Endpoint = lossy(t, cfg.Endpoint, &loses)
	s := openWith(t, cfg)
	object := bytes.Repeat([]byte("lost and found "), 1<<18) // sent after 100-continue
	loses.Store(true)
	wants(t, s.Put(t.Context(), testKey, object), ports.Ambiguous)
	loses.Store(false)
	// A server that refuses early may end the connection before its answer is read: in doubt, again.
	err := s.Put(t.Context(), testKey, object)
	for n := 0; n < 20 && ports.KindOf(err) == ports.Ambiguous; n++ {
		err = s.Put(t.Context(), testKey, object)
	}
	if !errors.Is(err, ports.ErrObjectExists) {
		t.Fatalf("the same again: %v", err)
	}
	info, err := s.Stat(t.Context(), testKey)
	if err != nil || info.Size != int64(len(object)) {
		t.Fatalf("stat is %+v, %v", info, err)
	}
	got, err := s.ReadRange(t.Context(), testKey, 0, info.Size)
	if err != nil || !bytes.Equal(got, object) {
		t.Errorf("it holds %d other bytes, %v", len(got), err)
	}
}

// Each store has connections of its own, as processes have.
func TestStore_HasOneWinnerAmongManyStores(t *testing.T) {
	const stores, rounds = 6, 15
	cfg := realConfig(t)
	var all []*Store
	for range stores {
		all = append(all, openWith(t, cfg))
	}
	for round := range rounds {
		key := fmt.Sprintf("race/%d", round)
		errs := make([]error, stores)
		var wg sync.WaitGroup
		for i, s := range all {
			wg.Go(func() { errs[i] = s.Put(t.Context(), key, bytes.Repeat([]byte{byte(i)}, 70_000)) })
		}
		wg.Wait()
		winner := slices.Index(errs, nil)
		for i, err := range errs {
			if i != winner && !errors.Is(err, ports.ErrObjectExists) {
				t.Fatalf("store %d got %v beside winner %d", i, err, winner)
			}
		}
		got, err := all[0].ReadRange(t.Context(), key, 0, 70_000)
		if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(winner)}, 70_000)) {
			t.Fatalf("the winner's bytes did not stay: %v", err)
		}
	}
}

// The server refuses such a Put before it has read all of it.
func TestPut_OfATakenKeyIsHeardWhateverTheSize(t *testing.T) {
	s := openReal(t)
	for i, size := range []int{0, 100 << 10, 1 << 20, 2_000_000, 8 << 20} {
		key, object := fmt.Sprintf("taken/%d", i), bytes.Repeat([]byte("x"), size)
		if err := s.Put(t.Context(), key, object); err != nil {
			t.Fatal(err)
		}
		for range 25 {
			if err := s.Put(t.Context(), key, object); !errors.Is(err, ports.ErrObjectExists) {
				t.Fatalf("put of %d bytes: %v", size, err)
			}
		}
	}
}
