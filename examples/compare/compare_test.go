//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/engine/enginetest"
)

// TestMain lets the test be the second process too, as main does.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == otherArg {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, tt := range []struct {
		name   string
		values []float64
		p      float64
		want   float64
	}{
		{"median of one", []float64{7}, 50, 7},
		{"median of three", []float64{3, 1, 2}, 50, 2},
		{"median of four is the lower", []float64{4, 3, 2, 1}, 50, 2},
		{"95th of few is the largest", []float64{1, 9, 5}, 95, 9},
		{"95th of a hundred", hundred, 95, 95},
		{"99th of a hundred", hundred, 99, 99},
		{"least", hundred, 0, 1},
		{"largest", hundred, 100, 100},
	} {
		if got := percentile(tt.values, tt.p); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := percentile(nil, 50); !math.IsNaN(got) {
		t.Errorf("of nothing: %v, want NaN", got)
	}
	if values := []float64{2, 1}; median(values) != 1 || values[0] != 2 {
		t.Errorf("the values were sorted in place: %v", values)
	}
}

// fixed is a report of figures that are known.
func fixed() report {
	r := report{results: newResults(), made: "Made by a test.", machine: "a machine", version: map[string]string{"runc": "runc 1"}}
	r.tools = []*tool{{name: "Nestbox", how: "so"}, {name: "host"}, {name: "runc", how: "thus"}, {name: "idle"}}
	first := row{name: "first", unit: millis, tail: true}
	for i := range 100 {
		r.results.add(first, "Nestbox", float64(i+1), nil)
	}
	r.results.add(first, "runc", 20, nil)
	r.results.add(first, "runc", 0, errors.New("a | b\nc"))
	run := row{name: "run", unit: millis, host: true}
	r.results.add(run, "host", 2, nil)
	r.results.add(run, "Nestbox", 3, nil)
	r.results.add(run, "runc", 0, errors.New("no"))
	r.results.add(row{name: "memory, with 10 live", unit: mebibytes}, "Nestbox", 1.5, nil)
	r.missing = []absence{{"crun", errors.New("not installed; x")}}
	return r
}

func TestMarkdown(t *testing.T) {
	var out strings.Builder
	fixed().markdown(&out, "c.svg")
	for _, want := range []string{
		"<!-- Made by a test. Don't edit. -->\n\na machine\n",
		"](c.svg)",
		"| | Nestbox | host | runc |\n|---|--:|--:|--:|\n",
		"| first, ms | 50.0 ×2.5 | – | **20.0**, 1 failed |\n",
		"| run, ms | 3.00 ×1.5 | **2.00** | failed |\n",
		"| | Nestbox |\n|---|--:|\n| memory, with 10 live, MiB | 1.50 |\n",
		"| first | Nestbox | 50.0 | 95.0 | 99.0 | 100 | 0 |\n|  | runc | 20.0 | 20.0 | 20.0 | 2 | 1 |\n",
		"\nrunc, first: 1 failed, the first with: a \\| b c\n",
		"| runc | runc 1 | thus |\n",
		"| crun | – | not installed; x |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, &out)
		}
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{1234.5: "1234", 123.4: "123", 12.34: "12.3", 1.234: "1.23", 0.0123: "0.012", 0: "0.000"} {
		if got := figure(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

func TestChart(t *testing.T) {
	svg, err := fixed().chart()
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, svg)
	if !bytes.Contains(svg, []byte("Nestbox")) || !bytes.Contains(svg, []byte("Made by a test.")) {
		t.Errorf("the chart:\n%s", svg)
	}
}

func wellFormed(t *testing.T, svg []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatalf("the chart isn't well-formed: %v", err)
		}
	}
}

func TestPosture(t *testing.T) {
	enginetest.Require(t, enginetest.Sandboxes)
	sb := enginetest.New(t, engine.CreateOptions{})
	p, err := sb.Posture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPosture(p); err != nil {
		t.Errorf("of a sandbox as it is by default: %v", err)
	}
	for name, weaken := range map[string]func(*engine.Posture){
		"seccomp":      func(p *engine.Posture) { p.Seccomp = "disabled" },
		"privileges":   func(p *engine.Posture) { p.NoNewPrivileges = false },
		"ids":          func(p *engine.Posture) { p.UID = 0 },
		"capabilities": func(p *engine.Posture) { p.Capabilities = append([]string{"CAP_BPF"}, p.Capabilities...) },
		"namespace":    func(p *engine.Posture) { p.Namespaces = map[string]bool{"pid": true} },
		"limits":       func(p *engine.Posture) { p.Limits.Processes = -1 },
	} {
		q := p
		if weaken(&q); !errors.Is(checkPosture(q), errPosture) {
			t.Errorf("nobody minds weaker %s", name)
		}
	}
}

// TestRun measures all rows, but only what is sure to be there, and bubblewrap.
func TestRun(t *testing.T) {
	enginetest.Require(t, enginetest.Sandboxes)
	dir := t.TempDir()
	o, err := parse([]string{"-quick", "-tools", "^(Nestbox.*|host|bubblewrap)$", "-dir", dir, "-o", dir})
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	if err := run(t.Context(), o, &lines); err != nil {
		t.Fatalf("%v\n%s", err, &lines)
	}
	text, err := os.ReadFile(filepath.Join(dir, "compare.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := []row{createRow, firstRow, closeRow, wholeRow, staggerRow, burstRow(o.burst), throughputRow, execTrue, firstByte,
		writeSmall, readSmall, reconnect, pause, resume, writeLarge, readLarge}
	for _, n := range o.counts {
		if n < 10 {
			rows = append(rows, liveRows(n)[2:]...)
		} else {
			rows = append(rows, liveRows(n)...)
		}
	}
	for _, w := range rows {
		line := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(w.name) + `(, \S+)? \|.*[0-9].*$`).FindString(string(text))
		if line == "" || strings.Contains(line, "failed") {
			t.Errorf("no figure for %s, or failures: %q", w.name, line)
		}
		if !strings.Contains(lines.String(), w.name) {
			t.Errorf("no line for %s was printed", w.name)
		}
	}
	svg, err := os.ReadFile(filepath.Join(dir, "compare.svg"))
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, svg)
	if left, err := filepath.Glob(filepath.Join(dir, "compare-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if t.Failed() {
		t.Logf("%s\n%s", &lines, text)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-live", "x"}, {"-n", "0"}, {"-only", "("}, {"-tools", "("}, {"-burst", "0"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
