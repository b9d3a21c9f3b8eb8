package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// inode names what a file is, as stat's "%d:%i" does.
func inode(t *testing.T, f *os.File) string {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// TestFilesPassed checks that a command has the caller's own files, and not copies of what they hold.
func TestFilesPassed(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	dir := t.TempDir()
	var files []*os.File
	for _, name := range []string{"in", "out", "err"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("0123456789\n"); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	c := sb.Command("sh", "-c", "for n in 0 1 2; do stat -L -c %d:%i /proc/self/fd/$n; done; read rest; echo $rest >&2")
	c.Stdin, c.Stdout, c.Stderr = files[0], files[1], files[2]
	if _, err := files[0].Seek(7, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range files {
		want = append(want, inode(t, f))
	}
	got, err := os.ReadFile(files[1].Name())
	if text := "0123456789\n" + strings.Join(want, "\n") + "\n"; err != nil || string(got) != text {
		t.Errorf("stdout: %q, %v, want %q", got, err, text)
	}
	got, err = os.ReadFile(files[2].Name())
	if err != nil || string(got) != "0123456789\n789\n" {
		t.Errorf("stderr: %q, %v, want what was behind the position of stdin", got, err)
	}
	for i, f := range files {
		at, err := f.Seek(0, io.SeekCurrent)
		fi, serr := f.Stat()
		if err != nil || serr != nil || at != fi.Size() {
			t.Errorf("position of descriptor %d: %d, %v, %v, want the end", i, at, err, serr)
		}
	}
}

// TestPipesStay checks that a pipe of the caller's stays one that has deadlines, which os/exec takes from it, and
// that to the command it is one that blocks.
func TestPipesStay(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	named, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	for _, f := range []struct{ r, w *os.File }{{r, w}, {named, named}} {
		c := sb.Command("sh", "-c", "stat -L -c %d:%i /proc/self/fd/0; read a; read b; echo $a $b")
		c.Stdin = f.r
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if got := readLine(t, out); got != inode(t, f.r) {
			t.Errorf("stdin is %s, want %s", got, inode(t, f.r))
		}
		awaitProcess(t, sb, "sh", "sleeping")
		for _, line := range []string{"one\n", "two\n"} {
			if _, err := f.w.WriteString(line); err != nil {
				t.Fatal(err)
			}
		}
		if got := readLine(t, out); got != "one two" {
			t.Errorf("the command read %q", got)
		}
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		if err := f.r.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		if n, err := f.r.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read with a deadline: %d, %v, want ErrDeadlineExceeded", n, err)
		}
	}
	c := sb.Command("sh", "-c", "echo to the caller")
	c.Stdout = w
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := readLine(t, r); got != "to the caller" {
		t.Errorf("read %q", got)
	}
}

// TestSocketPassed passes a socket, which can't be opened again.
func TestSocketPassed(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "mine"), os.NewFile(uintptr(fds[1]), "theirs")
	defer mine.Close()
	c := sb.Command("cat")
	c.Stdin, c.Stdout = theirs, theirs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	awaitProcess(t, sb, "cat", "sleeping")
	if _, err := mine.WriteString("there and back\n"); err != nil {
		t.Fatal(err)
	}
	if got := readLine(t, mine); got != "there and back" {
		t.Errorf("read %q", got)
	}
	if err := syscall.Shutdown(fds[0], syscall.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

// TestKillGroup kills a command with all that it has started and that has not left its process group.
func TestKillGroup(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	c := sb.Command("sh", "-c", "sleep 1000 & sleep 1000 & (sleep 1000 & sleep 1000) & setsid sleep 500 & echo ready; wait")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	readLine(t, out)
	eventually(t, 10*time.Second, "all have started", func() bool {
		out, _ := sb.Command("pgrep", "-x", "sleep").Output()
		return bytes.Count(out, []byte("\n")) == 5
	})
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("wait: %v, want signal: killed", err)
	}
	eventually(t, 10*time.Second, "only the one in another group is left", func() bool {
		list := processes(t, sb)
		for _, p := range list {
			if len(list) == 1 && p.Name == "sleep" && p.Args[1] == "500" {
				return true
			}
		}
		return false
	})
}

// TestThousand runs a thousand commands at once: all have started before the first ends.
func TestThousand(t *testing.T) {
	eng := open(t, "")
	const n = 1000
	sb := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Processes: 2 * n, Memory: -1, OpenFiles: 4 * n, CPUs: -1}})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmds := make([]*engine.Cmd, n)
	outs := make([]bytes.Buffer, n)
	start := time.Now()
	for i := range cmds {
		c := sb.Command("sh", "-c", `read x; echo "$0 $x"; exit $1`, fmt.Sprint(i), fmt.Sprint(i%256))
		c.Stdin, c.Stdout = r, &outs[i]
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		cmds[i] = c
	}
	started := time.Since(start)
	if got := len(processes(t, sb)); got != n {
		t.Errorf("%d processes, want %d", got, n)
	}
	if _, err := io.WriteString(w, strings.Repeat("x\n", n)); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	for i, c := range cmds {
		err := c.Wait()
		if code := c.ProcessState.ExitCode(); code != i%256 || code != 0 && err == nil {
			t.Errorf("command %d: %v, exit code %d", i, err, code)
		}
		if want := fmt.Sprintf("%d ", i); !strings.HasPrefix(outs[i].String(), want) {
			t.Errorf("command %d wrote %q", i, &outs[i])
		}
	}
	took := time.Since(start)

	start = time.Now()
	host := make([]*exec.Cmd, n)
	hr, hw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer hr.Close()
	for i := range host {
		host[i] = exec.Command("sh", "-c", `read x; echo "$0 $x"; exit $1`, fmt.Sprint(i), fmt.Sprint(i%256))
		host[i].Stdin, host[i].Stdout = hr, &bytes.Buffer{}
		if err := host[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	hostStarted := time.Since(start)
	_, _ = io.WriteString(hw, strings.Repeat("x\n", n))
	_ = hw.Close()
	for _, c := range host {
		_ = c.Wait()
	}
	t.Logf("%d commands at once started in %v, and ended after %v; by os/exec %v, %v", n, started, took, hostStarted, time.Since(start))
}
