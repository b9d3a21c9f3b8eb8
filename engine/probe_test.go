package engine_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

func TestProbe(t *testing.T) {
	t.Parallel()
	r := engine.Probe(t.Context())
	t.Logf("\n%s", r)
	for _, f := range r.Features {
		if f.Name == "" || f.Reason == "" {
			t.Errorf("feature %+v says too little", f)
		}
		if f.Support != engine.Supported && f.Remedy == "" {
			t.Errorf("feature %+v says not what to do", f)
		}
		if f.Required && f.Support == engine.Unsupported && os.Geteuid() == 0 {
			t.Errorf("feature %+v is missing, and yet the other tests run", f)
		}
	}
	if len(r.Features) < 8 {
		t.Errorf("%d features", len(r.Features))
	}
}

// TestReportErr names all that is missing at once, and nothing else.
func TestReportErr(t *testing.T) {
	r := engine.Report{Features: []engine.Feature{
		{Name: "a", Required: true, Support: engine.Unsupported, Reason: "no a", Remedy: "get an a"},
		{Name: "b", Required: true, Support: engine.Supported, Reason: "has b", Remedy: "get a b"},
		{Name: "c", Required: true, Support: engine.Unsupported, Reason: "no c", Remedy: "get a c"},
		{Name: "d", Support: engine.Unsupported, Reason: "no d", Remedy: "get a d"},
		{Name: "e", Required: true, Support: engine.Unknown, Reason: "who knows", Remedy: "get an e"},
	}}
	err := r.Err()
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("got %v, want errors.ErrUnsupported", err)
	}
	for text, want := range map[string]bool{"no a": true, "get an a": true, "get a b": false, "get a c": true, "get a d": false, "get an e": false} {
		if got := strings.Contains(err.Error(), text); got != want {
			t.Errorf("%q says %q: %v, want %v", err, text, got, want)
		}
	}
	r.Features = r.Features[3:]
	if err := r.Err(); err != nil {
		t.Errorf("with nothing that is required missing: %v", err)
	}
}

func BenchmarkOpen(b *testing.B) {
	needRoot(b)
	dir := stateDir(b)
	sideBySide(b, func() {
		eng, err := engine.Open(b.Context(), engine.Options{Dir: dir})
		try(b, err)
		try(b, eng.Close())
	}, func() { engine.Probe(b.Context()) })
}
