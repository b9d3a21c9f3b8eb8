package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/engine/internal/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// probeAs runs all probes in a sandbox and gives their error numbers by name.
func probeAs(t *testing.T, sb *engine.Sandbox, user string) map[string]syscall.Errno {
	t.Helper()
	c := sb.Command("/tmp/self")
	c.User, c.Dir, c.Env = user, "/", []string{helperVar + "=probes"}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("probes: %v\n%s", err, out)
	}
	got := map[string]syscall.Errno{}
	for line := range strings.Lines(string(out)) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), "\t")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("probes print %q", line)
		}
		got[name] = syscall.Errno(n)
	}
	return got
}

func TestDenied(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	putSelf(t, sb)
	for _, user := range []string{"root", "user"} {
		got := probeAs(t, sb, user)
		want := map[string]syscall.Errno{"clone users": unix.EPERM}
		for _, p := range allProbes() {
			want[p.name] = p.want
		}
		for name, errno := range want {
			if got[name] != errno {
				t.Errorf("as %s, %s: %q, want %q", user, name, got[name], errno)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d probes, want %d", len(got), len(want))
		}
	}
	if err := sb.Command("true").Run(); err != nil {
		t.Errorf("a command afterwards: %v", err)
	}
}

// TestWeakened makes the same calls where no profile is in their way: there they get further.
func TestWeakened(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Seccomp: engine.SeccompUnconfined})
	putSelf(t, sb)
	for _, user := range []string{"root", "user"} {
		got := probeAs(t, sb, user)
		shown := 0
		for _, p := range allProbes() {
			if p.weak == nobody || p.weak == root && user != "root" {
				continue
			}
			shown++
			if got[p.name] == p.want {
				t.Errorf("as %s, %s: %q as with the profile", user, p.name, p.want)
			}
		}
		t.Logf("as %s %d of %d probes get further", user, shown, len(allProbes()))
		if got["clone users"] != syscall.ENOSPC { // which user.max_user_namespaces denies besides
			t.Errorf("as %s, a user namespace: %q, want %q", user, got["clone users"], syscall.ENOSPC)
		}
	}
	if mode := seccompMode(t, sb.Command("cat", "/proc/self/status")); mode != "0" {
		t.Errorf("seccomp mode of a command is %s, want 0", mode)
	}
}

// seccompMode is what a command's status says, which it prints.
func seccompMode(t *testing.T, c *engine.Cmd) string {
	t.Helper()
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return modeIn(string(out))
}

// modeIn finds the seccomp mode in what proc_pid_status(5) describes.
func modeIn(status string) string {
	_, rest, _ := strings.Cut(status, "\nSeccomp:")
	mode, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(mode)
}

// TestConfined looks at every kind of process that a sandbox has.
func TestConfined(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{})
	for _, user := range []string{"root", "user"} {
		c := sb.Command("cat", "/proc/self/status")
		c.User, c.Dir = user, "/"
		if mode := seccompMode(t, c); mode != "2" {
			t.Errorf("a command of %s: mode %q, want 2", user, mode)
		}
	}
	pty, err := sb.Command("cat", "/proc/self/status").StartPTY(engine.WindowSize{})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(pty) // which ends as terminals do
	_ = pty.Close()
	if mode := modeIn(strings.ReplaceAll(string(out), "\r", "")); mode != "2" {
		t.Errorf("on a terminal: mode %q, want 2", mode)
	}
	first := sb.Command("sh", "-c", "cat /proc/self/status; read x")
	first.Spool = 1 << 16
	stdin, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	again, err := sb.Attach(t.Context(), first.Pid())
	if err != nil {
		t.Fatal(err)
	}
	_ = stdin.Close()
	out, _ = again.Output() // read fails at the end of its input
	if mode := modeIn(string(out)); mode != "2" {
		t.Errorf("attached to: mode %q, want 2", mode)
	}
	_ = first.Wait()
	checkThreads(t, agentPID(t, eng, sb.ID()))
}

// checkThreads looks at the agent's threads from the host.
func checkThreads(t *testing.T, pid int) {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(names) < 3 {
		t.Fatalf("the agent's threads: %q, %v", names, err)
	}
	for _, name := range names {
		status, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended
		}
		if mode := modeIn(string(status)); err != nil || mode != "2" || !strings.Contains(string(status), "\nNoNewPrivs:\t1\n") {
			t.Errorf("%s: mode %q, %v, want 2 and no new privileges\n%s", name, mode, err, status)
		}
	}
}

// TestOwnProfile gives a profile, by which the agent lives as well as commands.
func TestOwnProfile(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	p := engine.DefaultSeccomp()
	full := uint(unix.ENOSPC)
	p.Syscalls = append([]specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &full}}, p.Syscalls...)
	sb := create(t, eng, engine.CreateOptions{Seccomp: p})
	if out, err := sb.Command("mkdir", "/tmp/a").CombinedOutput(); err == nil || !strings.Contains(string(out), "No space") {
		t.Errorf("mkdir: %q, %v, want that there is no space", out, err)
	}
	if err := sb.FS().Mkdir("/tmp/b", 0o755); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the agent's mkdir: %v, want ENOSPC", err)
	}
	p.Syscalls[0].Names = append(p.Syscalls[0].Names, "mkdirr")
	_, err := eng.Create(t.Context(), engine.CreateOptions{Seccomp: p})
	var ierr *engine.InvalidError
	if !errors.As(err, &ierr) || ierr.Field != "Seccomp" || !strings.Contains(ierr.Reason, `syscalls[0].names`) {
		t.Errorf("a name that is none: %v, want an InvalidError of Seccomp that names the entry", err)
	}
}

// TestCopyOfUnconfined gives SeccompUnconfined's content as a profile. It allows what this architecture has.
func TestCopyOfUnconfined(t *testing.T) {
	t.Parallel()
	p := *engine.SeccompUnconfined
	sb := create(t, open(t, ""), engine.CreateOptions{Seccomp: &p})
	if mode := seccompMode(t, sb.Command("cat", "/proc/self/status")); mode != "2" {
		t.Errorf("mode %q, want 2", mode)
	}
}

// TestNoSeccomp creates a sandbox where the kernel has no seccomp.
func TestNoSeccomp(t *testing.T) {
	t.Parallel()
	needRoot(t)
	p := start(t, "noseccomp", stateDir(t))
	if got := p.line(t); got != "unsupported true, says how true" {
		t.Errorf("Create without seccomp: %s", got)
	}
	if got := p.line(t); got != "unconfined <nil>" {
		t.Errorf("with SeccompUnconfined: %s", got)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

func init() {
	helpers["noseccomp"] = func(args []string) error { // <dir>: creates sandboxes where seccomp(2) is ENOSYS
		if err := denySeccomp(); err != nil {
			return err
		}
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		defer eng.Close()
		_, err = eng.Create(ctx, engine.CreateOptions{})
		fmt.Printf("unsupported %v, says how %v\n", errors.Is(err, errors.ErrUnsupported), strings.Contains(fmt.Sprint(err), "SeccompUnconfined"))
		sb, err := eng.Create(ctx, engine.CreateOptions{Seccomp: engine.SeccompUnconfined})
		fmt.Println("unconfined", err)
		if err != nil {
			return err
		}
		return sb.Close()
	}
}

// denySeccomp takes seccomp(2) from this process and its children.
func denySeccomp() error {
	missing := uint(unix.ENOSYS)
	p, err := seccomp.Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"seccomp"}, Action: specs.ActErrno, ErrnoRet: &missing},
	}}, runtime.GOARCH)
	if err != nil {
		return err
	}
	code := p.Bytes()
	prog := unix.SockFprog{Len: uint16(len(p.Code)), Filter: (*unix.SockFilter)(unsafe.Pointer(&code[0]))}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return errno
	}
	runtime.KeepAlive(code)
	return nil
}
