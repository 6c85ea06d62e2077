package admin_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, change func(*admin.Config)) (get func(path, token string) (int, string)) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "answer"}, func() float64 { return 42 }))
	cfg := admin.Config{
		Address: "127.0.0.1:0", Metrics: registry,
		Ready:  func(context.Context) error { return nil },
		Status: func(context.Context) any { return map[string]string{"agent": "a1"} },
	}
	change(&cfg)
	s, err := admin.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return func(path, token string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Address()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", token)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
}

func TestServer_TellsWhatItIsAsked(t *testing.T) {
	get := start(t, func(*admin.Config) {})
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "answer 42", "/status": `{"agent":"a1"}`} {
		if code, body := get(path, ""); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func TestReadyz_SaysWhyNotWhileHealthzHolds(t *testing.T) {
	get := start(t, func(c *admin.Config) {
		c.Ready = func(context.Context) error { return errors.New("draining") }
	})
	if code, body := get("/readyz", ""); code != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
		t.Errorf("readyz: %d %s", code, body)
	}
	if code, _ := get("/healthz", ""); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
}

func TestPprof_IsForWhoHasTheToken(t *testing.T) {
	get := start(t, func(c *admin.Config) { c.Token = "open sesame" })
	for token, want := range map[string]int{
		"": 401, "open sesame": 401, "Basic open sesame": 401, "Bearer open": 401, "Bearer open sesame!": 401,
		"Bearer open sesame": 200,
	} {
		if code, body := get("/debug/pprof/", token); code != want || strings.Contains(body, "sesame") {
			t.Errorf("with %q: %d, want %d", token, code, want)
		}
	}
	if code, _ := get("/debug/pprof/cmdline", "Bearer open sesame"); code != http.StatusNotFound {
		t.Errorf("the command line is shown: %d", code)
	}
	without := start(t, func(*admin.Config) {})
	if code, _ := without("/debug/pprof/", ""); code != http.StatusNotFound {
		t.Errorf("without a token there are profiles: %d", code)
	}
}

func TestStart_SaysWhereItCouldNotListen(t *testing.T) {
	_, err := admin.Start(admin.Config{Address: "127.0.0.1:1000000"})
	if err == nil || !strings.Contains(err.Error(), "1000000") {
		t.Error(err)
	}
}
