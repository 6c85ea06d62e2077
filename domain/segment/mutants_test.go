//go:build mutants

package segment_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
)

// TestMutants_ChangeWhatTheyAreNamedFor makes sure that each planted bug is one.
func TestMutants_ChangeWhatTheyAreNamedFor(t *testing.T) {
	build := func() (second int64, crcRight, verified bool) {
		w := segment.NewWriter(nil, cluster, id)
		for _, first := range []int64{epoch + 100, epoch} {
			position, err := w.Add(topicA, 0, newBatch(t, first, 2, batch.NoProducer))
			if err != nil {
				t.Fatal(err)
			}
			second = position
		}
		object, sum, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		mutant.Set("")
		_, err = segment.Verify(object)
		return second, sum == segment.CRC32C(object), err == nil
	}
	for id, healthy := range map[mutant.ID]func() bool{
		"segment-answers-position-of-extent": func() bool { second, _, _ := build(); return second > segment.HeaderSize },
		"segment-crc-leaves-out-footer":      func() bool { _, right, _ := build(); return right },
		"segment-max-timestamp-is-last":      func() bool { _, _, verified := build(); return verified },
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
