package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

func TestExcerpt(t *testing.T) {
	for _, tt := range []struct {
		size   int
		writes []string
		want   string
		lost   int64
	}{
		{4, nil, "", 0},
		{4, []string{"ab"}, "ab", 0},
		{4, []string{"abcd", "efgh"}, "abcdefgh", 0},
		{4, []string{"abcdefghi"}, "abcd\n... omitting 1 bytes ...\nfghi", 1},
		{2, []string{"a", "b", "c", "d", "e", "f"}, "ab\n... omitting 2 bytes ...\nef", 2},
		{0, []string{strings.Repeat("x", 64<<10)}, strings.Repeat("x", 64<<10), 0},
	} {
		e := &engine.Excerpt{Size: tt.size}
		for _, w := range tt.writes {
			if n, err := fmt.Fprint(e, w); n != len(w) || err != nil {
				t.Errorf("write: %d, %v", n, err)
			}
		}
		if got := e.String(); got != tt.want || e.Omitted() != tt.lost {
			t.Errorf("of %q, %d bytes: %q, %d omitted, want %q, %d", tt.writes, tt.size, got, e.Omitted(), tt.want, tt.lost)
		}
	}
}
