//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A process is a command, be it os/exec's or a sandbox's.
type process interface {
	StdinPipe() (io.WriteCloser, error)
	StdoutPipe() (io.ReadCloser, error)
	Start() error
	Wait() error
}

// A tool runs programs in sandboxes.
type tool struct {
	name    string
	program string // that it needs; empty: none
	install string // how to have that
	kernel  bool   // it is a kernel itself: a call that it lets through is its own work

	prepare func(context.Context) (remove func() error, err error)    // nil: there is nothing to prepare
	probe   func(ctx context.Context, args []string) (process, error) // in a new sandbox, to be started
}

// A bench is what all tools are tried on: a root file system that holds the probe and nothing else.
type bench struct {
	dir, rootfs, probe string
	figures            []string // of the host, for the probe
}

func newBench(ctx context.Context) (*bench, error) {
	dir, err := os.MkdirTemp("", "layers-")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, rootfs: filepath.Join(dir, "rootfs"), probe: filepath.Join(dir, "rootfs", "probe")}
	if err := b.fill(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) close() error { return os.RemoveAll(b.dir) }

func (b *bench) fill(ctx context.Context) error {
	if err := os.Chmod(b.dir, 0o755); err != nil { // for bubblewrap, which isn't run as root
		return err
	}
	for _, dir := range []string{"dev", "proc", "sys"} {
		if err := os.MkdirAll(filepath.Join(b.rootfs, dir), 0o755); err != nil {
			return err
		}
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", b.probe, "github.com/nestbox/nestbox/examples/layers/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // static, as there is no library beside it
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the probe: %w\n%s", err, out)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(b.dir, &st); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	b.figures = []string{fmt.Sprint(st.Blocks * uint64(st.Bsize)), fmt.Sprint(files.Max)}
	return nil
}

// see runs the probe in two sandboxes of a tool, at the same time.
func (b *bench) see(ctx context.Context, t tool) (c column, err error) {
	if t.program != "" {
		if _, err := exec.LookPath(t.program); err != nil {
			return c, fmt.Errorf("it isn't installed: %s", t.install)
		}
	}
	if t.prepare != nil {
		remove, perr := t.prepare(ctx)
		if perr != nil {
			return c, perr
		}
		defer func() { err = errors.Join(err, remove()) }()
	}
	var sessions [2]session
	for i := range sessions {
		s := &sessions[i]
		serr := s.start(ctx, t, append([]string{"layers-" + rand.Text()}, b.figures...))
		defer func() { err = errors.Join(err, s.close()) }()
		if serr != nil {
			return c, serr
		}
	}
	c = column{t.name, append(outsideRows(sessions[0].outside, sessions[1].outside), sessions[0].rows...)}
	for i, r := range c.rows {
		if t.kernel && !r.on && strings.HasPrefix(r.layer, call) {
			c.rows[i].note = "its own"
		}
	}
	return c, nil
}

// call is how the probe begins the names of system calls that are refused.
const call = "no call: "

// A session is a sandbox in which the probe waits.
type session struct {
	stdin   io.Closer
	process process // nil: it hasn't been started
	rows    []row
	outside view
}

func (s *session) start(ctx context.Context, t tool, args []string) error {
	p, err := t.probe(ctx, args)
	if err != nil {
		return err
	}
	if s.stdin, err = p.StdinPipe(); err != nil {
		return err
	}
	stdout, err := p.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	s.process = p
	if s.rows, err = readRows(stdout); err != nil {
		return err
	}
	pid, err := find(args[0])
	if err != nil {
		return err
	}
	s.outside, err = look(pid)
	return err
}

// readRows reads what the probe prints.
func readRows(r io.Reader) (rows []row, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Split(lines.Text(), "\t")
		switch {
		case f[0] == "done":
			return rows, nil
		case len(f) == 3:
			rows = append(rows, row{f[1], f[0] == "true", f[2]})
		}
	}
	return nil, errors.Join(errors.New("the probe didn't come to its end"), lines.Err())
}

func (s *session) close() error {
	if s.process == nil {
		return nil
	}
	return errors.Join(s.stdin.Close(), s.process.Wait())
}
