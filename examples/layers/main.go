//go:build linux

// Command layers prints which layers of isolation Nestbox and other programs have on by default, as seen on this host.
// It runs a small program, that in the directory probe, in each of those that are installed, looks at its process from
// the host too, and prints a table in Markdown. Run it as root from within the module: go run ./examples/layers
//
// Two sandboxes of each are run at a time, to see what they share. What this host refuses to everybody tells nothing of
// a sandbox, and is left out.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/nestbox/nestbox/engine"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, w io.Writer) (err error) {
	eng, err := engine.Open(ctx, engine.Options{Dir: os.Getenv("NESTBOX_DIR")}) // empty: /var/lib/nestbox
	if err != nil {
		return err
	}
	defer eng.Close()
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	host, err := b.see(ctx, tool{name: "host", probe: b.host})
	if err != nil {
		return err
	}
	var columns []column
	for _, t := range b.tools(eng) {
		c, err := b.see(ctx, t)
		if err != nil {
			fmt.Fprintf(w, "%s is left out: %v\n\n", t.name, err)
			continue
		}
		columns = append(columns, c)
	}
	printTable(w, host, columns)
	return nil
}

// A column is what was seen of a tool.
type column struct {
	name string
	rows []row
}

type row struct {
	layer string
	on    bool
	note  string
}

func (r row) String() string {
	mark := "–"
	if r.on {
		mark = "✓"
	}
	return strings.TrimSpace(mark + " " + r.note)
}

func printTable(w io.Writer, host column, columns []column) {
	fmt.Fprint(w, "| layer")
	for _, c := range columns {
		fmt.Fprint(w, " | ", c.name)
	}
	fmt.Fprintln(w, " |\n|---"+strings.Repeat("|---", len(columns))+"|")
	var silent []string
	for i, r := range host.rows {
		if r.on {
			silent = append(silent, r.layer)
			continue
		}
		fmt.Fprint(w, "| ", r.layer)
		for _, c := range columns {
			fmt.Fprint(w, " | ", c.rows[i])
		}
		fmt.Fprintln(w, " |")
	}
	if len(silent) > 0 {
		fmt.Fprintf(w, "\nRefused by this host without a sandbox too: %s.\n", strings.Join(silent, ", "))
	}
}
