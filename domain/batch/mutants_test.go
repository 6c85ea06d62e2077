//go:build mutants

package batch_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// seen reports whether b, changed on its way, is refused.
func seen(b []byte, at int) bool {
	b[at] ^= 1
	_, err := batch.Verify(b)
	if err == nil {
		err = batch.VerifyStored(b)
	}
	return err != nil
}

// TestMutants_ChangeWhatTheyAreNamedFor makes sure that each planted bug is one.
func TestMutants_ChangeWhatTheyAreNamedFor(t *testing.T) {
	whole := func() []byte { return encode(t, samples, nil, somebody) }
	header := func() batch.Header { h, _ := batch.ParseHeader(whole()); return h }
	for id, healthy := range map[mutant.ID]func() bool{
		"batch-crc-unchecked":             func() bool { b := whole(); return seen(b, len(b)-1) },
		"batch-unsealed-fields-unchecked": func() bool { return seen(whole(), 7) },
		"batch-max-timestamp-is-first":    func() bool { return header().MaxTimestamp == samples[4].timestamp },
		"batch-sequence-left-out":         func() bool { return header().Producer == somebody },
		"batch-nil-key-becomes-empty": func() bool {
			got, err := read(encode(t, samples[1:2], nil, somebody), 0)
			return err == nil && got[0].key == nil
		},
	} {
		if !healthy() {
			t.Errorf("%s shows without being switched on", id)
		}
		mutant.Set(id)
		if healthy() {
			t.Errorf("%s does not show", id)
		}
		mutant.Set("")
	}
}
