package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// AgentUsage is what agents have used together between two looks at their metrics.
type AgentUsage struct {
	CPUSeconds           float64 `json:"cpu_seconds"`
	CPUSecondsPerMillion float64 `json:"cpu_seconds_per_million"`
	// RSSMB is at the second look.
	RSSMB       float64 `json:"rss_mb"`
	Objects     int64   `json:"objects"`
	Commits     int64   `json:"commits"`
	StoredBytes int64   `json:"stored_bytes"`
}

const (
	scrapeTimeout = 10 * time.Second
	maxMetrics    = 16 << 20
)

// LookAtAgents reads the metrics of the agents whose admin listeners are at the
// addresses, HOST:PORT or URLs, and returns their sums since each was started.
func LookAtAgents(ctx context.Context, addresses []string) (AgentUsage, error) {
	var sum AgentUsage
	for _, address := range addresses {
		families, err := scrape(ctx, address)
		if err != nil {
			return AgentUsage{}, fmt.Errorf("read the metrics of the agent at %s: %w", address, err)
		}
		sum.CPUSeconds += total(families["process_cpu_seconds_total"])
		sum.RSSMB += total(families["process_resident_memory_bytes"]) / (1 << 20)
		sum.Objects += int64(total(families["streamhouse_segment_puts_total"]))
		sum.Commits += int64(total(families["streamhouse_metadata_commits_total"]))
		sum.StoredBytes += int64(total(families["streamhouse_segment_put_bytes_total"]))
	}
	return sum, nil
}

// Since returns what was used since an earlier look.
func (u AgentUsage) Since(earlier AgentUsage) AgentUsage {
	return AgentUsage{
		CPUSeconds: u.CPUSeconds - earlier.CPUSeconds, RSSMB: u.RSSMB,
		Objects: u.Objects - earlier.Objects, Commits: u.Commits - earlier.Commits, StoredBytes: u.StoredBytes - earlier.StoredBytes,
	}
}

func scrape(ctx context.Context, address string) (map[string]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it is read, or of no interest
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", resp.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(io.LimitReader(resp.Body, maxMetrics))
}

// total sums the metrics of a family that went well.
func total(family *dto.MetricFamily) float64 {
	sum := 0.0
	for _, m := range family.GetMetric() {
		failed := false
		for _, label := range m.GetLabel() {
			failed = failed || label.GetName() == "outcome" && label.GetValue() != "ok"
		}
		if !failed {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}
