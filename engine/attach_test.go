package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// untilGo makes a command that runs before, waits until letGoOn is called, and then runs after.
const (
	untilGo = "%s; until [ -e /tmp/go ]; do sleep 0.01; done; %s"
	goFile  = "/tmp/go"
)

func letGoOn(t *testing.T, sb *engine.Sandbox) {
	t.Helper()
	if err := sb.FS().WriteFile(goFile, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func init() {
	helpers["spool"] = func(args []string) error { // <dir>: starts commands with and without a spool, prints id and pids, waits
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		sb, err := eng.Create(ctx, engine.CreateOptions{KeepAlive: time.Minute})
		if err != nil {
			return err
		}
		c := sb.Command("sh", "-c", fmt.Sprintf(untilGo, "echo before; echo to stderr >&2", "echo after; exit 7"))
		c.Spool = 4096
		out, err := c.StdoutPipe()
		if err != nil {
			return err
		}
		plain := sb.Command("sh", "-c", "while echo x; do sleep 0.01; done")
		plainOut, err := plain.StdoutPipe()
		if err != nil {
			return err
		}
		if err := errors.Join(c.Start(), plain.Start()); err != nil {
			return err
		}
		if _, err := io.ReadFull(out, make([]byte, len("before\n"))); err != nil {
			return err
		}
		if _, err := io.ReadFull(plainOut, make([]byte, 2)); err != nil {
			return err
		}
		fmt.Println(sb.ID(), c.Pid(), plain.Pid())
		untilClosed()
		return eng.Close()
	}
}

// startSpool starts the helper of that name.
func startSpool(t *testing.T, dir string) (p *process, id string, pid, plain int) {
	t.Helper()
	p = start(t, "spool", dir)
	if _, err := fmt.Sscan(p.line(t), &id, &pid, &plain); err != nil {
		t.Fatal(err)
	}
	return p, id, pid, plain
}

// endInTime kills a sandbox when the test ends, and waits for its tree, which the engine removes in the background.
func endInTime(t *testing.T, dir string, sb *engine.Sandbox) {
	t.Helper()
	t.Cleanup(func() {
		if err := sb.Kill(cleanupContext()); err != nil {
			t.Error(err)
		}
		eventually(t, 10*time.Second, "the tree is removed", func() bool { return len(list(t, filepath.Join(dir, "trash"))) == 0 })
	})
}

// attach attaches to a command.
func attach(t *testing.T, sb *engine.Sandbox, pid int) *engine.Cmd {
	t.Helper()
	c, err := sb.Attach(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantExit(t *testing.T, err error, code int) {
	t.Helper()
	var exit *engine.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Errorf("got %v, want exit status %d", err, code)
	}
}

// TestAttachAfterKill kills the process that started a command, by SIGKILL, and follows the command from another.
func TestAttachAfterKill(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := stateDir(t)
	p, id, pid, plain := startSpool(t, dir)
	p.kill()
	eng := open(t, dir)
	sb, err := eng.Reconnect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	endInTime(t, dir, sb)

	first := attach(t, sb, pid)
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if got := readLine(t, out); got != "before" {
		t.Errorf("replayed %q, want before", got)
	}
	second := attach(t, sb, pid)
	var stdout, stderr bytes.Buffer
	second.Stdout, second.Stderr = &stdout, &stderr
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	letGoOn(t, sb)
	if rest, err := io.ReadAll(out); string(rest) != "after\n" || err != nil {
		t.Errorf("followed %q, %v, want after", rest, err)
	}
	wantExit(t, first.Wait(), 7)
	wantExit(t, second.Wait(), 7)
	if stdout.String() != "before\nafter\n" || stderr.String() != "to stderr\n" {
		t.Errorf("the other got %q and %q", &stdout, &stderr)
	}
	if first.Missed() != 0 || second.Missed() != 0 {
		t.Errorf("missed %d and %d bytes, want none", first.Missed(), second.Missed())
	}
	if _, err := sb.Attach(t.Context(), pid); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("attach to what was waited for: %v, want ErrProcessDone", err)
	}
	eventually(t, 10*time.Second, "the command without a spool ends by SIGPIPE", func() bool {
		_, ok := processes(t, sb)[plain]
		return !ok
	})
}

// TestAttachAfterEnd lets the command end when nobody holds the sandbox.
func TestAttachAfterEnd(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := stateDir(t)
	p, id, pid, _ := startSpool(t, dir)
	eng := open(t, dir)
	sb, err := eng.Reconnect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
	letGoOn(t, sb)
	awaitProcess(t, sb, "sh", "ended")
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}
	if sb, err = eng.Reconnect(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	endInTime(t, dir, sb)
	c := attach(t, sb, pid)
	if c.Pid() != pid || !strings.HasPrefix(c.String(), "/usr/bin/sh -c echo before;") {
		t.Errorf("attached to %d, %s", c.Pid(), c)
	}
	out, err := c.Output()
	wantExit(t, err, 7)
	if want := "before\nafter\n"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if eerr := err.(*engine.ExitError); string(eerr.Stderr) != "to stderr\n" {
		t.Errorf("stderr: %q", eerr.Stderr)
	}
	if p, ok := processes(t, sb)[pid]; ok {
		t.Errorf("remembered after it was waited for: %+v", p)
	}
}

func TestAttachErrors(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{KeepAlive: time.Minute})
	plain := sb.Command("sleep", "1000")
	spooled := sb.Command("sh", "-c", "sleep 1000 & wait")
	spooled.Spool = 1
	for _, c := range []*engine.Cmd{plain, spooled} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	child := awaitProcess(t, sb, "sleep", "sleeping")
	for _, tt := range []struct {
		name string
		pid  int
		want error
	}{
		{"no number", 0, fs.ErrInvalid},
		{"negative", -1, fs.ErrInvalid},
		{"the agent", 1, fs.ErrInvalid},
		{"without a spool", plain.Pid(), fs.ErrInvalid},
		{"a child", child.PID, fs.ErrInvalid},
		{"nobody", 1 << 21, os.ErrProcessDone},
	} {
		c, err := sb.Attach(t.Context(), tt.pid)
		var eerr *engine.Error
		if c != nil || !errors.Is(err, tt.want) || !errors.As(err, &eerr) {
			t.Errorf("%s: %v, %v, want %v", tt.name, c, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sb.Attach(ctx, spooled.Pid()); !errors.Is(err, context.Canceled) {
		t.Errorf("attach with a context that is done: %v", err)
	}
	c := attach(t, sb, spooled.Pid())
	c.Stdin = strings.NewReader("x")
	if err := c.Run(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("with Stdin: %v, want ErrInvalid", err)
	}
	if _, err := attach(t, sb, spooled.Pid()).StartPTY(engine.WindowSize{}); err == nil {
		t.Error("StartPTY of an attached command goes well")
	}
	for _, spool := range []int64{-1, engine.MaxSpool + 1} {
		c := sb.Command("true")
		c.Spool = spool
		if err := c.Run(); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("with a spool of %d: %v, want ErrInvalid", spool, err)
		}
	}
	c = attach(t, sb, spooled.Pid())
	if err := c.Signal(syscall.Signal(0)); err != nil { // before Start
		t.Error(err)
	}
	if err := c.Kill(); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err == nil || err.Error() != "signal: killed" { // without Start
		t.Errorf("wait: %v, want signal: killed", err)
	}
	if err := c.Wait(); err == nil {
		t.Error("a second Wait goes well")
	}
	if err := c.Kill(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kill after Wait: %v, want ErrProcessDone", err)
	}
	other := attachEnded(t, sb)
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Run(); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("run on a closed handle: %v, want ErrClosed", err)
	}
	if err := eng.Kill(t.Context(), sb.ID()); err != nil {
		t.Error(err)
	}
}

// attachEnded attaches to a command that has ended.
func attachEnded(t *testing.T, sb *engine.Sandbox) *engine.Cmd {
	t.Helper()
	c := sb.Command("echo", "x")
	c.Spool = 100
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	awaitProcess(t, sb, "echo", "ended")
	return attach(t, sb, c.Pid())
}

// TestAttachContext lets go of a command, which goes on.
func TestAttachContext(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	c := sb.Command("sh", "-c", fmt.Sprintf(untilGo, "echo before", "echo after; exit 3"))
	c.Spool = 1000
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	viewer, err := sb.Attach(ctx, c.Pid())
	if err != nil {
		t.Fatal(err)
	}
	out, err := viewer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := viewer.Start(); err != nil {
		t.Fatal(err)
	}
	readLine(t, out)
	cancel()
	if rest, err := io.ReadAll(out); len(rest) > 0 || err != nil {
		t.Errorf("read %q, %v after letting go", rest, err)
	}
	if err := viewer.Wait(); err != context.Canceled {
		t.Errorf("wait: %v, want context.Canceled", err)
	}
	if viewer.ProcessState != nil {
		t.Errorf("state of a command that goes on: %v", viewer.ProcessState)
	}
	// With Kill as Cancel it is as with CommandContext.
	ctx, cancel = context.WithCancel(t.Context())
	killer, err := sb.Attach(ctx, c.Pid())
	if err != nil {
		t.Fatal(err)
	}
	letGoOn(t, sb)
	wantExit(t, c.Wait(), 3)
	killer.Cancel = killer.Kill
	var stdout bytes.Buffer
	killer.Stdout = &stdout
	wantExit(t, killer.Run(), 3) // it attached before the other waited
	if stdout.String() != "before\nafter\n" {
		t.Errorf("got %q", &stdout)
	}
	cancel()
}

// TestAttachHandleClosed closes the handle of one who follows.
func TestAttachHandleClosed(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{})
	c := sb.Command("sh", "-c", "echo x; exec sleep 1000")
	c.Spool = 1000
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	other, err := eng.Reconnect(t.Context(), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	viewer := attach(t, other, c.Pid())
	out, err := viewer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := viewer.Start(); err != nil {
		t.Fatal(err)
	}
	readLine(t, out)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(out); len(rest) > 0 || err != nil {
		t.Errorf("read %q, %v after the handle was closed", rest, err)
	}
	if err := viewer.Wait(); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("wait: %v, want ErrClosed", err)
	}
	if err := c.Kill(); err != nil {
		t.Errorf("the command does not go on: %v", err)
	}
	_ = c.Wait()
}

func TestSpoolKeepsTheEnd(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	var want bytes.Buffer
	for i := range 100000 {
		fmt.Fprintln(&want, i+1)
	}
	for _, size := range []int{1, 7, 1000, 4096, 65536, 65537, 1 << 20} {
		c := sb.Command("seq", "100000")
		c.Spool = int64(size)
		if err := c.Start(); err != nil { // nobody reads
			t.Fatal(err)
		}
		pid := c.Pid()
		viewer := attach(t, sb, pid)
		eventually(t, 20*time.Second, "seq ends", func() bool { return processes(t, sb)[pid].State == "ended" })
		out, err := viewer.Output()
		// What was in the pipe when seq ended may not have been in the spool yet.
		if kept := min(size, want.Len()); err != nil || len(out) < kept || len(out) > kept+1<<17 || !bytes.HasSuffix(want.Bytes(), out) {
			t.Errorf("of %d bytes: %d, %v, want the last ones", size, len(out), err)
		}
		if got := viewer.Missed(); got != int64(want.Len()-len(out)) {
			t.Errorf("of %d bytes: missed %d, want %d", size, got, want.Len()-len(out))
		}
	}
}

// TestSpoolLosesNothing has more output than the spool keeps, which goes on as fast as it is taken.
func TestSpoolLosesNothing(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	c := sb.Command("sh", "-c", "seq 1000000; seq 1000 >&2; exit 3")
	c.Spool = 1000
	out, err := c.Output()
	wantExit(t, err, 3)
	if n := bytes.Count(out, []byte("\n")); n != 1000000 || !bytes.HasSuffix(out, []byte("\n1000000\n")) || c.Missed() != 0 {
		t.Errorf("got %d lines, missed %d bytes, want a million and none", n, c.Missed())
	}
	merged := sb.Command("sh", "-c", "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done")
	merged.Spool = 1000
	var b bytes.Buffer
	merged.Stdout, merged.Stderr = &b, &b
	if err := merged.Start(); err != nil {
		t.Fatal(err)
	}
	viewer := attach(t, sb, merged.Pid())
	if err := merged.Wait(); err != nil {
		t.Fatal(err)
	}
	replay, err := viewer.Output()
	if want := "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nout 4\nerr 4\nout 5\nerr 5\n"; b.String() != want || string(replay) != want || err != nil {
		t.Errorf("got %q, and replayed %q, %v, want %q", &b, replay, err, want)
	}
}

// TestSpoolDoesNotWait has one reader that doesn't read, and one that does.
func TestSpoolDoesNotWait(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	c := sb.Command("seq", "300000")
	c.Spool = 5000
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	reader := attach(t, sb, c.Pid())
	var b bytes.Buffer
	reader.Stdout = &b
	start := time.Now()
	if err := reader.Run(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the command took %v for a reader that doesn't read", took)
	}
	if !strings.HasSuffix(b.String(), "\n300000\n") {
		t.Errorf("who reads got %d bytes, not to the end", b.Len())
	}
	late, err := io.ReadAll(out)
	if err != nil || !strings.HasSuffix(string(late), "\n300000\n") {
		t.Errorf("who reads late got %d bytes, %v, not to the end", len(late), err)
	}
	if err := c.Wait(); !errors.Is(err, engine.ErrSpoolOverrun) {
		t.Errorf("wait: %v, want ErrSpoolOverrun", err)
	}
	const total = 9*1 + 90*2 + 900*3 + 9000*4 + 90000*5 + 200001*6 + 300000
	if c.Missed() == 0 || c.Missed()+int64(len(late)) != total {
		t.Errorf("got %d bytes and missed %d, want %d in all", len(late), c.Missed(), total)
	}
}

// TestSpoolBounds has more spools than are kept.
func TestSpoolBounds(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	run := func(spool int64, script string) (*engine.Cmd, error) {
		c := sb.Command("sh", "-c", script)
		c.Spool = spool
		return c, c.Start()
	}
	var pids []int
	for range 80 {
		c, err := run(100, "echo x; exit 3")
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, c.Pid())
		eventually(t, 10*time.Second, "it ends", func() bool { s := processes(t, sb)[c.Pid()].State; return s == "ended" })
	}
	if _, err := sb.Attach(t.Context(), pids[0]); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("attach to the first: %v, want ErrProcessDone", err)
	}
	out, err := attach(t, sb, pids[len(pids)-1]).Output()
	wantExit(t, err, 3)
	if string(out) != "x\n" {
		t.Errorf("the last wrote %q", out)
	}

	var big []*engine.Cmd
	for range 2 {
		c, err := run(engine.MaxSpool, "exec sleep 1000")
		if err != nil {
			t.Fatal(err)
		}
		big = append(big, c)
	}
	_, err = run(engine.MaxSpool, "true")
	var perr *fs.PathError
	if !errors.As(err, &perr) || perr.Op != "spool" || perr.Err != syscall.ENOBUFS {
		t.Errorf("one over the bound: %v, want ENOBUFS", err)
	}
	if n := len(processes(t, sb)); n != len(big) {
		t.Errorf("%d processes are left or remembered, want %d", n, len(big))
	}
	for _, c := range big {
		_ = c.Kill()
		_ = c.Wait()
	}
	for range 20 { // what is waited for takes no room
		c, err := run(engine.MaxSpool, "head -c 1000000 /dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 { // and what isn't makes room
		c, err := run(engine.MaxSpool, "head -c 20000000 /dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "it ends", func() bool { return processes(t, sb)[c.Pid()].State == "ended" })
	}
}
