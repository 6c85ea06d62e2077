package batch_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
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
				staged.Gather(make([]byte, 0, 1<<12), func([]byte) {})
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

// Pieces of any size give the same bytes as one buffer, and each comes back once.
func TestExtend_GivesTheSameBytesAsOneBuffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var plain, pieced batch.Builder
		lent, forgotten := map[*byte]bool{}, false
		lend := func(n int) []byte {
			p := make([]byte, 0, n)
			lent[&p[:1][0]] = true
			return p
		}
		release := func(p []byte) {
			if cap(p) > 0 {
				delete(lent, &p[:1][0])
			}
		}
		plain.Reset(nil)
		pieced.Reset(lend(rapid.IntRange(batch.HeaderSize, 200).Draw(t, "first")))
		pieced.Stage(make([]byte, 0, rapid.SampledFrom([]int{0, 40, 120}).Draw(t, "stage")))
		for i := range rapid.IntRange(1, 60).Draw(t, "records") {
			key, value := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "key"), rapid.SliceOfN(rapid.Byte(), 0, 150).Draw(t, "value")
			headers := []domain.Header{{Key: "h", Value: key}}
			if batch.RecordBound(key, value, headers) > pieced.Cap()-pieced.Len() {
				if rapid.IntRange(0, 9).Draw(t, "forget") == 0 {
					forgotten = true // it grows as it likes
				} else {
					pieced.Extend(lend(rapid.IntRange(1, 300).Draw(t, "piece")))
				}
			}
			plain.Append(int64(i), key, value, headers)
			pieced.Append(int64(i), key, value, headers)
			if plain.Len() != pieced.Len() || plain.Count() != pieced.Count() || pieced.Len() > pieced.Cap()+120 {
				t.Fatalf("in pieces: %d records in %d bytes of %d, want %d in %d", pieced.Count(), pieced.Len(), pieced.Cap(), plain.Count(), plain.Len())
			}
		}
		pieced.Unstage()
		switch rapid.IntRange(0, 2).Draw(t, "end") {
		case 0:
			pieced.Gather(make([]byte, 0, rapid.IntRange(0, 20_000).Draw(t, "gathered")), release)
		case 1:
			pieced.Release(release)
			if pieced.Count() != 0 || pieced.Cap() != 0 || len(lent) != 0 && !forgotten {
				t.Fatalf("after Release: %d records, cap %d, %d pieces kept", pieced.Count(), pieced.Cap(), len(lent))
			}
			return
		}
		want, err := plain.Encode(nil, nil, somebody)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // once more: the batch is unchanged
			got, err := pieced.Encode(nil, nil, somebody)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("the batch in pieces differs (error %v)", err)
			}
		}
		if pieced.InPieces() {
			t.Fatal("the batch is still in pieces")
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
