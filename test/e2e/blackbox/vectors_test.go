package blackbox_test

import (
	"strings"
	"testing"
)

// TestKeys_GoWhereTheVectorsSay holds the command to SipHash-2-4 over the
// length and the bytes of the key, modulo the number of partitions.
func TestKeys_GoWhereTheVectorsSay(t *testing.T) {
	vectors := []struct {
		key       string
		of3, of10 int
	}{
		{"", 2, 9},
		{"a", 1, 7},
		{"user123", 2, 4},
		{"user456", 2, 5},
		{"order-42", 1, 0},
		{"0123456789abcdef", 0, 3},
	}
	var text, jsonText strings.Builder
	for _, v := range vectors {
		text.WriteString(v.key + "\tvalue\n")
		jsonText.WriteString(`{"key":"` + v.key + `","value":"value"}` + "\n")
	}
	dir := t.TempDir()
	for _, input := range []struct {
		name, text string
		args       []string
	}{
		{"lines", text.String(), []string{"--key-separator", `\t`}},
		{"json", jsonText.String(), []string{"--format", "json"}},
	} {
		for _, partitions := range []string{"3", "10"} {
			topic := input.name + partitions
			args := append([]string{"produce", topic, "--create", "--partitions", partitions, "--acks"}, input.args...)
			acks, err := readAcks(strings.NewReader(must(t, dir, input.text, args...).stdout))
			if err != nil || len(acks) != len(vectors) {
				t.Fatalf("%s: %d acknowledgements, %v", topic, len(acks), err)
			}
			for _, a := range acks {
				v := vectors[a.N-1]
				want := v.of3
				if partitions == "10" {
					want = v.of10
				}
				if a.Partition != want {
					t.Errorf("%s: key %q went to partition %d, want %d", topic, v.key, a.Partition, want)
				}
			}
		}
	}
}
