//go:build linux

// Command compare measures Nestbox beside what else runs commands in sandboxes on this host, all of it in turns in one
// run, and writes a table (compare.md) and a chart (compare.svg):
//
//	cd examples/compare && go run .
//
// With -live=1,10,100,1000 -patience=1m it also tells how a thousand sandboxes do, where there are some 4 GiB for them.
//
// It needs root. What isn't installed, or can't run here, is left out, and the report says why.
//
// Each sandbox of Nestbox's that is timed alone is asked how the kernel confines it, outside of the time that is
// measured, and the run fails if that is less than the defaults promise.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A bench is what a run needs and finds.
type bench struct {
	dir, state, scratch, rootfs string // scratch is where what the tools write goes
	large                       *os.File
	bundled                     atomic.Uint32
	tools                       []*tool // those that work
	results                     *results
	options
}

// options are what the flags say.
type options struct {
	rounds, loads, larges int           // how often all tools have their turn
	arriving              int           // sandboxes of a turn of staggered
	interval              time.Duration // between two of those
	burst                 int           // sandboxes at once
	busy                  time.Duration // of throughput
	size                  int64         // of the large file
	warm                  int           // size of the pool
	counts                []int         // of live sandboxes
	patience              time.Duration // for a tool to come to the next of them
	only, which           *regexp.Regexp
	dir, out              string
	cold                  string // the name of the tool whose sandboxes another has too
	said                  string // the flags that tell how it is measured, not where
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) == 3 && os.Args[1] == otherArg {
		err = beOther(context.Background(), os.Args[2], os.Stdin, os.Stdout) // it ends with its input, not by an interrupt
	} else if o, perr := parse(os.Args[1:]); perr != nil {
		os.Exit(2)
	} else {
		err = run(ctx, o, os.Stdout)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func parse(args []string) (o options, err error) {
	o.cold = "Nestbox"
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	quick := f.Bool("quick", false, "try all, in half a minute; the figures are no good")
	f.IntVar(&o.rounds, "n", 15, "`rounds`, in each of which all tools have their turn")
	f.DurationVar(&o.interval, "every", 50*time.Millisecond, "time between the creations that are staggered")
	f.IntVar(&o.burst, "burst", 100, "sandboxes that are created at once")
	f.DurationVar(&o.busy, "busy", 2*time.Second, "how long each tool shows its throughput")
	f.Int64Var(&o.size, "size", 1<<30, "`bytes` of the large file")
	live := f.String("live", "1,10,100", "`numbers` of live sandboxes at which to measure")
	f.DurationVar(&o.patience, "patience", 10*time.Second, "how long a tool may take to create those")
	only := f.String("only", "", "measure the rows that match this `regexp`")
	which := f.String("tools", "", "measure the tools that match this `regexp`")
	f.StringVar(&o.dir, "dir", "", "`directory` to work in; empty: that for temporary files")
	f.StringVar(&o.out, "o", ".", "`directory` for compare.md and compare.svg")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	f.Visit(func(flag *flag.Flag) {
		if flag.Name != "dir" && flag.Name != "o" {
			o.said += fmt.Sprintf(" -%s=%s", flag.Name, flag.Value)
		}
	})
	o.loads, o.larges, o.arriving, o.warm = 2, 2, 25, 8
	if *quick {
		o.rounds, o.loads, o.larges, o.arriving, o.warm = 2, 1, 1, 5, 2
		o.burst, o.busy, o.size, o.patience = min(o.burst, 6), 300*time.Millisecond, 16<<20, 3*time.Second
		*live = "1,10"
	}
	for field := range strings.SplitSeq(*live, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return o, usage(f, fmt.Errorf("-live: %q is no number of sandboxes", field))
		}
		o.counts = append(o.counts, n)
	}
	if o.rounds < 1 || o.burst < 1 || o.size < 1 {
		return o, usage(f, errors.New("-n, -burst and -size are at least 1"))
	}
	if o.only, err = regexp.Compile(*only); err == nil {
		o.which, err = regexp.Compile(*which)
	}
	return o, usage(f, err)
}

// usage says what is wrong with the flags, if something is.
func usage(f *flag.FlagSet, err error) error {
	if err != nil {
		fmt.Fprintln(f.Output(), err)
	}
	return err
}

// all are the tools, in the order of the columns.
func (b *bench) all() []*tool {
	return []*tool{
		b.nestbox(false), b.nestbox(true), b.host(), b.bubblewrap(),
		b.bundles("runc", "runc", "apt-get install runc", "`runc run`, confined as Nestbox (own user ids, namespaces, capabilities, limits), but without a seccomp filter; the host's /usr"),
		b.bundles("crun", "crun", "apt-get install crun", "as runc"),
		b.bundles("gVisor", "runsc", "CGO_ENABLED=0 go install gvisor.dev/gvisor/runsc@latest", "`runsc --ignore-cgroups --network=none run`, with runc's bundle", "--ignore-cgroups", "--network=none"),
		b.podman(), b.docker(),
		{name: "go-judge", program: "go-judge", install: "go install github.com/criyle/go-judge/cmd/go-judge@latest"},
		{name: "nsjail", program: "nsjail", install: "build it from github.com/google/nsjail"},
	}
}

// run measures, and writes the report.
func run(ctx context.Context, o options, w io.Writer) (err error) {
	begin := time.Now()
	b := &bench{options: o, results: newResults()}
	if err := b.prepare(); err != nil {
		return errors.Join(err, b.remove(nil))
	}
	all := b.all()
	defer func() { err = errors.Join(err, b.remove(all)) }()
	r := report{results: b.results, version: map[string]string{}, machine: machine(b.dir)}
	fmt.Fprintln(w, r.machine)
	for _, t := range all {
		if !o.which.MatchString(t.name) {
			continue
		}
		if err := t.start(ctx); errors.Is(err, errPosture) || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		} else if err != nil {
			fmt.Fprintf(w, "%s is left out: %s\n", t.name, oneLine(err))
			r.missing = append(r.missing, absence{t.name, err})
			continue
		}
		r.version[t.name] = t.version(ctx)
		b.tools = append(b.tools, t)
	}
	r.tools = b.tools
	for _, measure := range []func(context.Context) error{
		b.lives, b.staggered, b.bursts, b.throughput,
		func(ctx context.Context) error {
			return b.inside(ctx, o.rounds, execTrue, firstByte, writeSmall, readSmall, reconnect, pause, resume)
		},
		b.live, b.files,
	} {
		known := len(b.results.rows)
		if err := measure(ctx); err != nil {
			return err
		}
		b.results.print(w, r.names(), known)
	}
	for _, t := range b.tools {
		if t.broken != nil {
			r.missing = append(r.missing, absence{t.name, fmt.Errorf("ended early: %w", t.broken)})
		}
	}
	r.made = fmt.Sprintf("Made by `go run .%s` in examples/compare, on %s, in %v.", o.said,
		begin.UTC().Format(time.DateOnly), time.Since(begin).Round(time.Second))
	r.notes = []string{fmt.Sprintf("Each of %d rounds went round all tools, in another order each time, except for what is staggered (%d × %d, one each %v), "+
		"done at once or on all cores (one), and the large file of %d MiB (%d).", o.rounds, o.loads, o.arriving, o.interval, o.size>>20, o.larges),
		"The first result of tools with a program of their own is there when that ends, and so does the sandbox. “Create” there is until a command can be run in it.",
		"Their files are read and written by `cat` in the sandbox, on a directory of the host's."}
	return r.write(o.out)
}

// prepare makes what the tools work on.
func (b *bench) prepare() (err error) {
	if b.dir, err = os.MkdirTemp(b.options.dir, "compare-"); err != nil {
		return err
	}
	b.state, b.scratch, b.rootfs = filepath.Join(b.dir, "state"), filepath.Join(b.dir, "scratch"), filepath.Join(b.dir, "rootfs")
	if err := newRootfs(b.rootfs); err != nil {
		return err
	}
	// Users of the tools' sandboxes, who are nobody here, must reach the one and write to the other.
	return errors.Join(os.Mkdir(b.scratch, 0o777), os.Chmod(b.scratch, 0o777), os.Chmod(b.dir, 0o755))
}

// remove removes what prepare and the tools have made. It is not stopped by an interrupt.
func (b *bench) remove(tools []*tool) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for _, t := range tools {
		if t.opened && t.close != nil {
			if cerr := t.close(ctx); cerr != nil {
				err = errors.Join(err, fmt.Errorf("clean up %s: %w", t.name, cerr))
			}
		}
	}
	if err != nil || b.dir == "" { // what is left may still be in use
		return err
	}
	return os.RemoveAll(b.dir)
}

// write writes the files.
func (r report) write(dir string) error {
	svg, err := r.chart()
	if err != nil {
		return err
	}
	chart := ""
	if svg != nil {
		chart = "compare.svg"
		if err := os.WriteFile(filepath.Join(dir, chart), svg, 0o644); err != nil {
			return err
		}
	}
	var text strings.Builder
	r.markdown(&text, chart)
	return os.WriteFile(filepath.Join(dir, "compare.md"), []byte(text.String()), 0o644)
}
