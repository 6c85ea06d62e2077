package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// row is one line of a table for people.
type row struct {
	name  string
	value float64
	unit  string
}

// WriteText writes the result as a table.
func (r ProduceResult) WriteText(w io.Writer) error {
	l := r.Limits
	rows := []row{
		{"records", r.RecordsPerSecond, "records/s"},
		{"throughput", r.MBPerSecond, "MB/s"},
		{"cpu", r.CPUSecondsPerMillion, "s per million records"},
		{"allocations", r.AllocsPerRecord, "per record"},
		{"peak memory", r.PeakRSSMB, "MiB"},
		{"objects", r.ObjectsPerSecond, "/s"},
		{"commits", r.CommitsPerSecond, "/s"},
		{"stored", r.StoredMB, "MB"},
		{"ack p50", r.AckP50MS, "ms"},
		{"ack p99", r.AckP99MS, "ms"},
		{fmt.Sprintf("limit lz4, %d cores", l.Cores), l.LZ4, "MB/s"},
		{"limit append+fsync", l.AppendFsync, "MB/s"},
		{"limit object commits", l.ObjectCommits, "/s"},
		{"limit metadata commits", l.MetadataCommits, "/s"},
		{fmt.Sprintf("limit puts of %d MiB", PutBytes>>20), l.Puts, "MB/s"},
		{"put p50", l.PutP50MS, "ms"},
		{"ratio to lz4 limit", r.RatioToLZ4Limit, ""},
		{"ratio to lower limit", r.RatioToLimit, ""},
	}
	if r.Direct != nil {
		rows = append(rows, row{"without agents", r.Direct.MBPerSecond, "MB/s"}, row{"ratio to without agents", r.RatioToDirect, ""})
	}
	if r.Agents != nil {
		rows = append(rows, row{"agents' cpu", r.Agents.CPUSecondsPerMillion, "s per million records"}, row{"agents' memory", r.Agents.RSSMB, "MiB"})
	}
	return writeRows(w, fmt.Sprintf("produced %d records of %d bytes to %s in %.2f s", r.Records, r.RecordSize, r.Topic, r.Seconds), rows)
}

// WriteText writes the result as a table.
func (r ConsumeResult) WriteText(w io.Writer) error {
	return writeRows(w, fmt.Sprintf("consumed %d records of %d bytes from %s in %.2f s", r.Records, r.RecordSize, r.Topic, r.Seconds), []row{
		{"records", r.RecordsPerSecond, "records/s"},
		{"throughput", r.MBPerSecond, "MB/s"},
		{"cpu", r.CPUSecondsPerMillion, "s per million records"},
		{"allocations", r.AllocsPerRecord, "per record"},
		{"peak memory", r.PeakRSSMB, "MiB"},
		{"fetches", r.FetchesPerSecond, "/s"},
	})
}

// WriteText writes the result as a table.
func (r LatencyResult) WriteText(w io.Writer) error {
	rows := []row{
		{"send p50", r.P50MS, "ms"},
		{"send p99", r.P99MS, "ms"},
		{"read after it p50", r.TailP50MS, "ms"},
		{"read after it p99", r.TailP99MS, "ms"},
		{"object commit p50", r.ObjectP50MS, "ms"},
		{"metadata commit p50", r.MetadataP50MS, "ms"},
		{"ratio to both commits", r.RatioToLimit, ""},
	}
	if r.DirectP50MS > 0 {
		rows = append(rows, row{"send p50 without agents", r.DirectP50MS, "ms"}, row{"ratio to without agents", r.RatioToDirect, ""})
	}
	return writeRows(w, fmt.Sprintf("sent %d records of %d bytes one by one", r.Samples, r.RecordSize), rows)
}

func writeRows(w io.Writer, title string, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, title)
	for _, r := range rows {
		// The name is padded, so that only the values are aligned to the right.
		fmt.Fprintf(t, "  %-24s\t%s\t %s\n", r.name, number(r.value), r.unit)
	}
	return t.Flush()
}

// number writes v with three digits that say something.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// WriteJSON writes a result as one line of JSON, its figures rounded to four
// decimals.
func WriteJSON(w io.Writer, result any) error {
	b, err := json.Marshal(result)
	if err != nil {
		return err
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	round(fields)
	return json.NewEncoder(w).Encode(fields)
}

func round(fields map[string]any) {
	for name, v := range fields {
		switch v := v.(type) {
		case float64:
			fields[name] = math.Round(v*1e4) / 1e4
		case map[string]any:
			round(v)
		}
	}
}
