//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
)

// A report is what a run has found, and how.
type report struct {
	results *results
	tools   []*tool // in the order of the columns
	made    string  // how and when
	machine string
	notes   []string
	version map[string]string // of tools
	missing []absence
}

// An absence is a tool that wasn't measured.
type absence struct {
	name string
	err  error
}

func (r report) names() (list []string) {
	for _, t := range r.tools {
		list = append(list, t.name)
	}
	return list
}

func isLive(w row) bool   { return strings.HasSuffix(w.name, " live") }
func isSingle(w row) bool { return !isLive(w) }

// markdown writes the report. The chart is named in it, if there is one.
func (r report) markdown(w io.Writer, chart string) {
	fmt.Fprintf(w, "<!-- %s Don't edit. -->\n\n%s\n\n", r.made, r.machine)
	if chart != "" {
		fmt.Fprintf(w, "![Time from create to the first command's result](%s)\n\n", chart)
	}
	fmt.Fprint(w, "Medians, and how many times the row's yardstick, which is **bold**; of what is per second more is better. ", strings.Join(r.notes, " "), "\n\n")
	r.medians(w, isSingle)
	if len(r.results.used(r.names(), isLive)) > 0 {
		fmt.Fprint(w, "\nWhile so many sandboxes are live, all of them idle:\n\n")
		r.medians(w, isLive)
	}
	r.tails(w)
	fmt.Fprint(w, "\n| | version | how it was run |\n|---|---|---|\n")
	for _, t := range r.tools {
		fmt.Fprintf(w, "| %s | %s | %s |\n", t.name, r.version[t.name], t.how)
	}
	for _, m := range r.missing {
		fmt.Fprintf(w, "| %s | – | %s |\n", m.name, oneLine(m.err))
	}
}

// medians writes a table of the rows that keep selects, with a column for each tool that has figures in them.
func (r report) medians(w io.Writer, keep func(row) bool) {
	tools := r.results.used(r.names(), keep)
	fmt.Fprintln(w, "| | "+strings.Join(tools, " | ")+" |\n|---"+strings.Repeat("|--:", len(tools))+"|")
	for _, row := range r.results.rows {
		if !keep(row) || len(r.results.cells[row.name]) == 0 {
			continue
		}
		yardstick, value := r.results.yardstick(row)
		fmt.Fprint(w, "| ", row.name)
		if row.unit != "" {
			fmt.Fprint(w, ", ", row.unit)
		}
		for _, tool := range tools {
			fmt.Fprint(w, " | ", r.results.cell(row.name, tool).text(tool == yardstick, value))
		}
		fmt.Fprintln(w, " |")
	}
}

// text is a cell of a table; value is the yardstick's.
func (c cell) text(yardstick bool, value float64) string {
	if len(c.values) == 0 {
		if c.failures > 0 {
			return "failed"
		}
		return "–"
	}
	m := median(c.values)
	text := figure(m)
	switch {
	case yardstick:
		text = "**" + text + "**"
	case value > 0:
		text += fmt.Sprintf(" ×%.2g", m/value)
		if m/value >= 100 {
			text = figure(m) + fmt.Sprintf(" ×%.0f", m/value)
		}
	}
	if c.failures > 0 {
		text += fmt.Sprintf(", %d failed", c.failures)
	}
	return text
}

// tails writes what there is beside medians: a table of the rows whose slowest cases matter, and the failures.
func (r report) tails(w io.Writer) {
	if len(r.results.used(r.names(), func(w row) bool { return w.tail })) > 0 {
		r.percentiles(w)
	}
	r.failures(w)
}

func (r report) percentiles(w io.Writer) {
	fmt.Fprint(w, "\n| ms | | median | 95th percentile | 99th | of | failures |\n|---|---|--:|--:|--:|--:|--:|\n")
	for _, row := range r.results.rows {
		if !row.tail {
			continue
		}
		name := row.name
		for _, tool := range r.names() {
			c := r.results.cell(row.name, tool)
			if len(c.values)+c.failures == 0 {
				continue
			}
			fmt.Fprintf(w, "| %s | %s | ", name, tool)
			for _, p := range []float64{50, 95, 99} {
				if len(c.values) == 0 {
					fmt.Fprint(w, "– | ")
				} else {
					fmt.Fprint(w, figure(percentile(c.values, p)), " | ")
				}
			}
			fmt.Fprintf(w, "%d | %d |\n", len(c.values)+c.failures, c.failures)
			name = "" // once is enough
		}
	}
}

// failures says why what failed did so first.
func (r report) failures(w io.Writer) {
	for _, row := range r.results.rows {
		for _, tool := range r.names() {
			if c := r.results.cell(row.name, tool); c.err != nil {
				fmt.Fprintf(w, "\n%s, %s: %d failed, the first with: %s\n", tool, row.name, c.failures, oneLine(c.err))
			}
		}
	}
}

// oneLine is an error in a cell of a table.
func oneLine(err error) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(err.Error()), " "), "|", `\|`)
}
