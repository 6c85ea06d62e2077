package codec_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/codec"
)

func TestXXH32_GivesThePublishedValues(t *testing.T) {
	for in, want := range map[string]uint32{
		"":    0x02CC5D05,
		"a":   0x550D7456,
		"abc": 0x32D153FF,
		"Nobody inspects the spammish repetition": 0xE2293B2F,
	} {
		if got := codec.XXH32([]byte(in)); got != want {
			t.Errorf("%q: %08x, want %08x", in, got, want)
		}
	}
}
