//go:build linux

package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/console"
)

// A tool makes sandboxes, and runs commands in them. A function that is nil is something that it hasn't.
type tool struct {
	name    string
	program string // that it needs; empty: none
	install string // how to have that
	how     string // how it is run here, for the report
	opened  bool
	broken  error // why it has no turn any more; nil: it has

	open  func(ctx context.Context) error // once, before all others
	close func(ctx context.Context) error // removes whatever is there still, also after an interrupt

	run    func(ctx context.Context) error         // a new sandbox, in which true is run, and its end
	create func(ctx context.Context) (*box, error) // a sandbox that waits for commands
	here   func(ctx context.Context) (*box, error) // what has no creation that could be timed, but the same ops
	ready  func(ctx context.Context, n int) error  // waits until n sandboxes are there to be claimed
	list   func(ctx context.Context) (int, error)  // those that there are
}

// An op is one thing done in a sandbox, with the time it took.
type op func(ctx context.Context) (time.Duration, error)

// A box is a sandbox.
type box struct {
	ops    map[string]op                   // by the names of their rows
	check  func(ctx context.Context) error // of its isolation
	remove func(ctx context.Context) error
}

// timed makes an op of something that is timed from its begin to its end.
func timed(f func(ctx context.Context) error) op {
	return func(ctx context.Context) (time.Duration, error) {
		start := time.Now()
		err := f(ctx)
		return time.Since(start), err
	}
}

// A span is how long the parts of a sandbox's life took. Zero: it was not to be seen.
type span struct{ create, first, close, whole time.Duration }

// life has a sandbox made, run true and removed. What is first counts from start, which may be earlier than now.
func (t *tool) life(ctx context.Context, start time.Time) (s span, err error) {
	if t.run != nil {
		err := t.run(ctx) // its result is only known when the program ends, and with it the sandbox
		s.first = time.Since(start)
		s.whole = s.first
		return s, err
	}
	b, err := t.create(ctx)
	if err != nil {
		return s, err
	}
	s.create = time.Since(start)
	_, err = b.ops[execTrue.name](ctx)
	s.first = time.Since(start)
	if err == nil && b.check != nil {
		err = b.check(ctx)
	}
	closing := time.Now()
	err = errors.Join(err, b.remove(context.WithoutCancel(ctx)))
	s.close = time.Since(closing)
	s.whole = s.first + s.close
	return s, err
}

// version is what a tool's program says that it is, or else what the go command noted in it. Without a program it is that
// of this one.
func (t *tool) version(ctx context.Context) string {
	if t.program == "" {
		return thisVersion()
	}
	out, _ := exec.CommandContext(ctx, t.program, "--version").Output() // an error is an empty version
	line, _, _ := strings.Cut(string(out), "\n")
	if strings.Contains(line, "MISSING") {
		path, _ := exec.LookPath(t.program)
		if info, err := buildinfo.ReadFile(path); err == nil {
			return t.program + " " + info.Main.Version
		}
	}
	return strings.TrimSpace(line)
}

// thisVersion names the Go release, and the commit if it was noted, which go run doesn't.
func thisVersion() string {
	version := runtime.Version()
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			version += ", commit " + s.Value[:min(len(s.Value), 12)]
		}
	}
	return version
}

// start finds a tool, opens it and tries it. An error is why it is left out.
func (t *tool) start(ctx context.Context) error {
	if t.program != "" {
		if _, err := exec.LookPath(t.program); err != nil {
			return fmt.Errorf("not installed; %s", t.install)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if t.open != nil {
		t.opened = true
		if err := t.open(ctx); err != nil {
			return fmt.Errorf("can't run here: %w", err)
		}
	}
	if t.run == nil && t.create == nil {
		return errors.New("it is installed, but nobody has tried yet how to measure it")
	}
	if _, err := t.life(ctx, time.Now()); err != nil {
		return fmt.Errorf("can't run here: %w", err)
	}
	return nil
}

// do runs a command whose output doesn't matter, unless it fails.
func do(cmd *exec.Cmd) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return fmt.Errorf("%s: %w: %.300s", filepath.Base(cmd.Path), err, lines[len(lines)-1])
	}
	return nil
}

// commandBox is a sandbox in which commands are run by a program. Its files are what commands read and write; each tool
// has its own, as the users of each tool's sandboxes are others.
func (b *bench) commandBox(tool string, command func(ctx context.Context, terminal bool, args ...string) *exec.Cmd) *box {
	write := func(name string, from func() io.Reader) op {
		return timed(func(ctx context.Context) error {
			cmd := command(ctx, false, "sh", "-c", "cat > /scratch/"+tool+name)
			cmd.Stdin = from()
			return do(cmd)
		})
	}
	read := func(name string) op {
		return timed(func(ctx context.Context) error {
			cmd := command(ctx, false, "cat", "/scratch/"+tool+name)
			cmd.Stdout = struct{ io.Writer }{io.Discard} // else it would be /dev/null, and nothing be read
			return do(cmd)
		})
	}
	return &box{ops: map[string]op{
		execTrue.name:   timed(func(ctx context.Context) error { return do(command(ctx, false, "true")) }),
		firstByte.name:  func(ctx context.Context) (time.Duration, error) { return onTerminal(command(ctx, true, "echo")) },
		writeSmall.name: write("small", func() io.Reader { return bytes.NewReader(small) }),
		readSmall.name:  read("small"),
		writeLarge.name: write("large", func() io.Reader { _, _ = b.large.Seek(0, io.SeekStart); return b.large }),
		readLarge.name:  read("large"),
	}}
}

// onTerminal starts a command on a new terminal, and tells when its first byte is there.
func onTerminal(cmd *exec.Cmd) (time.Duration, error) {
	start := time.Now()
	master, path, err := console.NewPty()
	if err != nil {
		return 0, err
	}
	defer master.Close()
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = errors.Join(cmd.Start(), slave.Close())
	if err != nil {
		return 0, err
	}
	_, err = master.Read(make([]byte, 1))
	took := time.Since(start)
	return took, errors.Join(err, cmd.Wait())
}
