//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// The units of rows.
const (
	millis      = "ms"
	perSecond   = "/s"
	mebibytes   = "MiB"
	descriptors = "" // a number
)

// A row is what is measured of each tool.
type row struct {
	name string
	unit string
	tail bool // its slowest cases matter: it has 95th and 99th percentiles too
	host bool // the host without a sandbox is its yardstick
}

// A cell is what was measured of one tool in a row.
type cell struct {
	values   []float64
	failures int
	err      error // the first of them
}

// results are safe for concurrent use.
type results struct {
	mu    sync.Mutex
	rows  []row // in the order in which they were declared
	cells map[string]map[string]*cell
}

func newResults() *results { return &results{cells: map[string]map[string]*cell{}} }

// declare adds a row, which has no figures yet, unless it is there.
func (r *results) declare(w row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cells[w.name] == nil {
		r.rows = append(r.rows, w)
		r.cells[w.name] = map[string]*cell{}
	}
}

// add adds a figure, or a failure, of a tool to a row.
func (r *results) add(w row, tool string, value float64, err error) {
	r.declare(w)
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.cells[w.name][tool]
	if c == nil {
		c = &cell{}
		r.cells[w.name][tool] = c
	}
	if err == nil {
		c.values = append(c.values, value)
		return
	}
	if c.failures++; c.err == nil {
		c.err = err
	}
}

// cell gives what is known of a tool in a row.
func (r *results) cell(name, tool string) cell {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.cells[name][tool]; c != nil {
		return *c
	}
	return cell{}
}

// hopeless tells whether a tool fails each time in a row, so that more tries would only take time.
func (r *results) hopeless(name, tool string) bool {
	c := r.cell(name, tool)
	return c.failures > 1 && len(c.values) == 0
}

// yardstick gives the tool by which the others are measured in a row, and its median; empty: there is none. It is the
// host where that does the same without a sandbox, else the least of what is a sandbox. What is taken of the host has none:
// it can be nothing.
func (r *results) yardstick(w row) (tool string, value float64) {
	if w.unit != millis && w.unit != perSecond {
		return "", 0
	}
	tools := []string{"bubblewrap", "runc"}
	if w.host {
		tools = []string{"host"}
	}
	for _, tool := range tools {
		if c := r.cell(w.name, tool); len(c.values) > 0 && median(c.values) > 0 {
			return tool, median(c.values)
		}
	}
	return "", 0
}

// print prints a line for each row from the first on, as it stands.
func (r *results) print(w io.Writer, tools []string, first int) {
	for _, row := range r.rows[first:] {
		if len(r.cells[row.name]) == 0 {
			continue
		}
		fmt.Fprintf(w, "%-32s", row.name)
		for _, tool := range tools {
			if c := r.cell(row.name, tool); len(c.values)+c.failures > 0 {
				fmt.Fprintf(w, "  %s %s", tool, c.brief(row.unit))
			}
		}
		fmt.Fprintln(w)
	}
}

// brief is a cell's median and its failures.
func (c cell) brief(unit string) string {
	var parts []string
	if len(c.values) > 0 {
		parts = append(parts, strings.TrimSpace(figure(median(c.values))+" "+unit))
	}
	if c.failures > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", c.failures))
	}
	return strings.Join(parts, ", ")
}

// figure has three digits, which is more than any of these is good for.
func figure(v float64) string {
	digits := 0
	for limit := 100.0; v < limit && digits < 3; limit /= 10 {
		digits++
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// used gives those of tools that have a figure in some row that keep selects.
func (r *results) used(tools []string, keep func(row) bool) (list []string) {
	for _, tool := range tools {
		if slices.ContainsFunc(r.rows, func(w row) bool { return keep(w) && len(r.cell(w.name, tool).values) > 0 }) {
			list = append(list, tool)
		}
	}
	return list
}
