package powerloss_test

import (
	"strings"
	"testing"
)

func TestHistory_NoticesEveryBrokenPromise(t *testing.T) {
	cases := []struct {
		name, want string
		rounds     []string // lines separated by ";"
	}{
		{"all is well", "", []string{
			"no-topic;topic;checked;ack 0 0 11;ack 0 1 12;refused 13;ack 1 0 14",
			"read 0 0 11;read 0 1 12;read 1 0 14;read 1 1 15;end 0 2;end 1 2;checked;ack 0 2 16",
			"read 1 0 14;read 1 1 15;read 0 0 11;read 0 1 12;read 0 2 16;end 0 3;end 1 2;checked",
		}},
		{"not checked yet", "", []string{"ack 0 0 11", "read 0 0 11"}},
		{"lost at the end", "is lost", []string{"ack 0 0 11;ack 0 1 12", "read 0 0 11;end 0 1;checked"}},
		{"lost partition", "is lost", []string{"ack 2 0 11", "end 2 0;checked"}},
		{"lost after it was read", "is lost", []string{"read 0 0 11;end 0 1;checked", "end 0 0;checked"}},
		{"lost topic", "topic is lost", []string{"no-topic;topic", "no-topic"}},
		{"another record in its place", "was acknowledged", []string{"ack 0 0 11", "read 0 0 12"}},
		{"damaged", "was acknowledged", []string{"ack 0 0 11", "read 0 0 damaged"}},
		{"one offset for two", "was given to", []string{"ack 0 0 11;ack 0 0 12"}},
		{"one record twice", "is at", []string{"ack 0 0 11", "read 0 0 11;read 0 1 11"}},
		{"read twice", "read twice", []string{"read 0 0 11;read 0 0 11"}},
		{"a hole", "no offset 1 below", []string{"read 0 0 11;read 0 2 12;end 0 3;checked"}},
		{"refused and there", "told that it is not stored", []string{"refused 11", "read 0 0 11"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := newHistory()
			var broken error
			for _, lines := range c.rounds {
				r := h.begin(true)
				for line := range strings.SplitSeq(lines, ";") {
					if broken == nil {
						broken = h.take(r, line)
					}
				}
			}
			if c.want == "" && broken != nil || c.want != "" && (broken == nil || !strings.Contains(broken.Error(), c.want)) {
				t.Errorf("broken promise: %v, want %q", broken, c.want)
			}
		})
	}
}
