package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/recordio"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/segment"
)

// maxSegmentFile is the largest file that is read as a segment.
const maxSegmentFile = 1 << 30

func (a *app) segmentCommand() *cobra.Command {
	return group("segment", "Look into segment files", a.segmentDump(), a.segmentVerify())
}

func oneOrMoreFiles(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("want at least one file")
	}
	return nil
}

func (a *app) segmentVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE...",
		Short: "Check every byte of segment files",
		Long: "Checks header, index, footer and their checksum, every batch's checksum, that every\n" +
			"record decodes, and that a file named by a segment id holds that segment. Prints one\n" +
			"line for each file; the exit code is 1 if any is not right.",
		Example: "  streamhouse segment verify data/segments/*/*",
		Args:    oneOrMoreFiles,
		RunE: func(_ *cobra.Command, args []string) error {
			bad := 0
			for _, path := range args {
				s, err := verifySegment(path)
				line := fmt.Sprintf("%s: ", visible(path))
				if err != nil {
					bad++
					line += visible(err.Error())
				} else {
					line += fmt.Sprintf("ok, segment %s, %d %s", s.ID, len(s.Extents), plural(int64(len(s.Extents)), "extent"))
				}
				if err := a.print([]byte(line + "\n")); err != nil {
					return err
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d files are not right", bad, len(args))
			}
			return nil
		},
	}
}

func verifySegment(path string) (*segment.Segment, error) {
	object, err := readSegment(path)
	if err != nil {
		return nil, err
	}
	s, err := segment.Verify(object)
	if err != nil {
		return nil, err
	}
	if err := s.VerifyRecords(batch.NewDecoder(codec.NewLZ4())); err != nil {
		return nil, err
	}
	if id, err := domain.ParseUUID(filepath.Base(path)); err == nil && domain.SegmentID(id) != s.ID {
		return nil, &domain.CorruptError{Segment: domain.SegmentID(id), What: fmt.Sprintf("the file holds segment %s", s.ID)}
	}
	return s, nil
}

// readSegment reads a file that is not larger than a segment may be.
func readSegment(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	object, err := io.ReadAll(io.LimitReader(f, maxSegmentFile+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if len(object) > maxSegmentFile {
		return nil, fmt.Errorf("larger than %d bytes: not a segment", maxSegmentFile)
	}
	return object, nil
}

// withoutPath takes the path out of an error that will be shown after it.
func withoutPath(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

func (a *app) segmentDump() *cobra.Command {
	var output string
	var records bool
	cmd := &cobra.Command{
		Use:   "dump FILE",
		Short: "Show what a segment file holds",
		Long: "Shows the segment's header, its extents and their batches. With --records the\n" +
			"records follow as JSON lines; their offsets count from the start of the batch, since\n" +
			"a segment does not know what offsets its records got, and topics are named by id.",
		Example: "  streamhouse segment dump data/segments/0f/01902e4a-8c00-7000-8000-000000000001",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return usagef("--output is %.60q: want text or json", output)
			}
			object, err := readSegment(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			s, err := segment.Open(object)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			d := dump{app: a, segment: s, crc: segment.CRC32C(object)}
			if output == "json" {
				err = d.json()
			} else {
				err = d.text()
			}
			if err == nil && records {
				err = d.records()
			}
			return err
		},
	}
	cmd.Flags().StringVar(&output, "output", "text", "print `FORMAT`: text or json")
	cmd.Flags().BoolVar(&records, "records", false, "show the records too")
	return cmd
}

// dump shows one segment.
type dump struct {
	app     *app
	segment *segment.Segment
	crc     uint32
}

func (d dump) text() error {
	s := d.segment
	head := fmt.Appendf(nil, "segment %s\ncluster %s\nversion %d, %s bytes, crc32c %08x, %d %s\n\n",
		s.ID, s.Cluster, segment.Version, grouped(s.Size()), d.crc, len(s.Extents), plural(int64(len(s.Extents)), "extent"))
	if err := d.app.print(head); err != nil {
		return err
	}
	w := d.app.table()
	fmt.Fprintln(w, "TOPIC\tPARTITION\tPOSITION\tLENGTH\tRECORDS\tCODEC\tFIRST\tNEWEST\tPRODUCER\tEPOCH\tSEQUENCE")
	for _, e := range s.Extents {
		for b, err := range s.Batches(e) {
			if err != nil {
				return err
			}
			h := b.Header
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%d\t%d\t%d\n", e.Topic, e.Partition, b.Position, h.Length, h.Records, h.Codec,
				milliText(h.BaseTimestamp), milliText(h.MaxTimestamp), h.Producer.ID, h.Producer.Epoch, h.Producer.Sequence)
		}
	}
	return w.Flush()
}

func (d dump) json() error {
	s := d.segment
	out := fmt.Appendf(nil, `{"segment":"%s","cluster":"%s","version":%d,"bytes":%d,"crc32c":"%08x","extents":[`, s.ID, s.Cluster, segment.Version, s.Size(), d.crc)
	for i, e := range s.Extents {
		if i > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, `{"topic":"%s","partition":%d,"position":%d,"length":%d,"records":%d,"batches":[`, e.Topic, e.Partition, e.Position, e.Length, e.Records)
		comma := ""
		for b, err := range s.Batches(e) {
			if err != nil {
				return err
			}
			h := b.Header
			out = fmt.Appendf(out, `%s{"position":%d,"length":%d,"records":%d,"codec":"%s","base_timestamp":%d,"max_timestamp":%d,"producer":%d,"epoch":%d,"sequence":%d,"crc32c":"%08x"}`,
				comma, b.Position, h.Length, h.Records, h.Codec, h.BaseTimestamp, h.MaxTimestamp, h.Producer.ID, h.Producer.Epoch, h.Producer.Sequence, h.CRC)
			comma = ","
		}
		out = append(out, "]}"...)
	}
	return d.app.print(append(out, "]}\n"...))
}

// records prints every record, and stops at the first batch that does not
// decode.
func (d dump) records() error {
	decoder := batch.NewDecoder(codec.NewLZ4())
	var out []byte
	for _, e := range d.segment.Extents {
		for b, err := range d.segment.Batches(e) {
			if err != nil {
				return err
			}
			records, err := decoder.Decode(b.Bytes)
			if err != nil {
				return fmt.Errorf("batch at position %d: %w", b.Position, err)
			}
			out = out[:0]
			for r := (batch.Record{}); records.Next(&r); {
				out = appendRecord(out, e, &r)
			}
			if err := d.app.print(out); err != nil {
				return err
			}
			if err := records.Err(); err != nil {
				return fmt.Errorf("batch at position %d: %w", b.Position, err)
			}
		}
	}
	return nil
}

func appendRecord(out []byte, e segment.Extent, r *batch.Record) []byte {
	m := domain.Message{
		Topic: e.Topic.String(), Partition: e.Partition, Offset: r.Offset, Timestamp: time.UnixMilli(r.Timestamp),
		Key: r.Key, Value: r.Value, Headers: r.AppendHeaders(nil),
	}
	return append(recordio.AppendJSON(out, &m), '\n')
}

func milliText(ms int64) string { return time.UnixMilli(ms).UTC().Format(recordio.TimeLayout) }
