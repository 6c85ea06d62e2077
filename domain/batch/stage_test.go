package batch_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain/batch"
)

func TestStage_GivesTheSameBytesAsWithout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var plain, staged batch.Builder
		plain.Reset(nil)
		staged.Reset(nil)
		stage := make([]byte, 0, rapid.IntRange(0, 200).Draw(t, "stage"))
		staged.Stage(stage)
		for i := range rapid.IntRange(1, 60).Draw(t, "records") {
			value := rapid.SliceOfN(rapid.Byte(), 0, 150).Draw(t, "value")
			plain.Append(int64(i), nil, value, nil)
			staged.Append(int64(i), nil, value, nil)
			if plain.Len() != staged.Len() || plain.Count() != staged.Count() {
				t.Fatalf("staged: %d records in %d bytes, want %d in %d", staged.Count(), staged.Len(), plain.Count(), plain.Len())
			}
			if i == 30 {
				staged.Move(make([]byte, 0, 1<<12))
			}
		}
		if rapid.Bool().Draw(t, "unstage") {
			staged.Unstage()
			clear(stage[:cap(stage)]) // it is another builder's now
		}
		want, err := plain.Encode(nil, nil, batch.NoProducer)
		if err != nil {
			t.Fatal(err)
		}
		got, err := staged.Encode(nil, nil, batch.NoProducer)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("staged batch differs (error %v)", err)
		}
	})
}

func TestSetProducer_MakesTheBatchOfAnotherSession(t *testing.T) {
	build := func(p batch.Producer) []byte {
		var b batch.Builder
		b.Reset(nil)
		b.Append(1, []byte("k"), []byte("v"), nil)
		out, err := b.Encode(nil, nil, p)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	got, want := batch.Producer{ID: 7, Epoch: 2, Sequence: 0}, batch.Producer{ID: 9, Epoch: 0, Sequence: 41}
	b := build(got)
	batch.SetProducer(b, want)
	if !bytes.Equal(b, build(want)) {
		t.Error("the rewritten batch is not the one that the other session builds")
	}
}
