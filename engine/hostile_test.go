package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
	"golang.org/x/sys/unix"
)

func init() {
	// Inside a sandbox: <file>: takes a lease on it that it never gives back, prints a line, waits.
	helpers["lease"] = func(args []string) error {
		signal.Ignore(syscall.SIGIO)
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
			return err
		}
		fmt.Println("leased")
		untilClosed()
		return f.Close()
	}
	// Inside a sandbox: stops every process of its user, again and again.
	helpers["stop"] = func([]string) error {
		fmt.Println("stopping")
		for {
			_ = syscall.Kill(-1, syscall.SIGSTOP)
		}
	}
	// Inside a sandbox: uses up what the kernel counts for each user.
	helpers["exhaust"] = func([]string) error {
		n := 0
		for ; n < 100_000; n++ {
			if _, err := unix.InotifyInit(); err != nil {
				break
			}
		}
		fmt.Println("instances", n)
		untilClosed()
		return nil
	}
	// <description>: prints what the session keyring has of that.
	helpers["keyring"] = func(args []string) error {
		id, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", args[0], 0)
		fmt.Println(id > 0, err)
		return nil
	}
}

// putSelf puts this program into a sandbox, as /tmp/self.
func putSelf(t *testing.T, sb *engine.Sandbox) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := sb.FS().WriteFile("/tmp/self", data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// startHelper starts a command of this program as a helper, whose input stays open, and gives its output.
func startHelper(t testing.TB, c *engine.Cmd, helper string) io.Reader {
	t.Helper()
	c.Env = []string{helperVar + "=" + helper}
	_, err := c.StdinPipe()
	out, oerr := c.StdoutPipe()
	if err := errors.Join(err, oerr, c.Start()); err != nil {
		t.Fatal(err)
	}
	return out
}

// connectTo makes a connection to a listener of this process, and gives both ends.
func connectTo(l net.Listener) (c, s net.Conn, err error) {
	if c, err = net.Dial("tcp", l.Addr().String()); err == nil {
		s, err = l.Accept()
	}
	return c, s, err
}

// guest starts a helper in a sandbox and gives its first line.
func guest(t *testing.T, sb *engine.Sandbox, helper string, args ...string) (*engine.Cmd, string) {
	t.Helper()
	c := sb.Command("/tmp/self", args...)
	out := startHelper(t, c, helper)
	t.Cleanup(func() { // and until then its streams stay open
		_ = c.Kill()
		_ = c.Wait()
	})
	buf := make([]byte, 4096)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatalf("%s: %v", helper, err)
	}
	return c, strings.TrimSpace(string(buf[:n]))
}

// TestStuckExec keeps a program from being executed. Nothing else has to wait for it, and neither does its start
// for long. The default seccomp profile denies leases, another may not.
func TestStuckExec(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{User: "user", Seccomp: engine.SeccompUnconfined})
	putSelf(t, sb)
	prog, err := sb.FS().ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if err := sb.FS().WriteFile("/tmp/prog", prog, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, line := guest(t, sb, "lease", "/tmp/prog"); line != "leased" {
		t.Fatalf("the guest says %q", line)
	}
	began := time.Now()
	started := make(chan error, 1)
	go func() {
		c := sb.Command("/tmp/prog")
		err := c.Start()
		if err == nil {
			err = c.Wait()
		}
		started <- err
	}()
	again, err := eng.Reconnect(t.Context(), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := sb.FS().Stat("/"); err != nil {
			t.Fatal(err)
		}
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-started:
		t.Errorf("the program started after all: %v", err)
	default:
	}
	select {
	case err := <-started:
		var exit *engine.ExitError
		if !errors.As(err, &exit) || exit.Signal() != syscall.SIGKILL {
			t.Errorf("start of the program: %v, want it killed", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the start does not end")
	}
	t.Logf("the start was given up after %v", time.Since(began))
	if err := sb.Command("true").Run(); err != nil {
		t.Errorf("another command: %v", err)
	}
}

// TestStoppedExec has a guest stop processes of its user wherever it can, also between fork and exec.
func TestStoppedExec(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{User: "user"})
	putSelf(t, sb)
	if _, line := guest(t, sb, "stop"); line != "stopping" {
		t.Fatalf("the guest says %q", line)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 3 {
		c := sb.CommandContext(ctx, "true")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		_ = c.Kill() // it may be stopped after exec too
		_ = c.Wait()
	}
	if _, err := sb.FS().Stat("/"); err != nil {
		t.Error(err)
	}
	if err := sb.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// TestHostsFilesAreFree has a guest that is root lease, which needs another seccomp profile than the default, and lock
// files that the host has too.
func TestHostsFilesAreFree(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{Seccomp: engine.SeccompUnconfined})
	putSelf(t, sb)
	for _, name := range []string{"/usr/bin/env", "/etc/ld.so.cache", "/etc/ssl/certs"} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		lock := sb.Command("flock", name, "sh", "-c", "echo locked; sleep 1000")
		out, err := lock.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Start(); err != nil {
			t.Fatalf("flock, which util-linux has: %v", err)
		}
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			t.Errorf("the host locks %s: %v", name, err)
		}
		_ = f.Close()
		if err := lock.Kill(); err != nil {
			t.Error(err)
		}
		_ = out.Close()
		_ = lock.Wait()
	}
	for _, name := range []string{"/usr/bin/env", "/etc/ld.so.cache"} {
		if _, line := guest(t, sb, "lease", name); line != "leased" {
			t.Errorf("lease on %s: %q", name, line)
		}
		f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Errorf("the host opens %s: %v", name, err)
			continue
		}
		_ = f.Close()
	}
}

// TestOwnAccount has a guest use up what the kernel counts for each user. Others have theirs.
func TestOwnAccount(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	hog, other := create(t, eng, engine.CreateOptions{}), create(t, eng, engine.CreateOptions{})
	putSelf(t, hog)
	putSelf(t, other)
	_, most := guest(t, hog, "exhaust")
	if most == "instances 0" || most == "instances 100000" {
		t.Errorf("the guest had %s, want some", most)
	}
	fd, err := unix.InotifyInit()
	if err != nil {
		t.Errorf("the host: %v", err)
	}
	_ = unix.Close(fd)
	if _, got := guest(t, other, "exhaust"); got != most {
		t.Errorf("another sandbox had %s, want as many as the first, %s", got, most)
	}
}

// TestOwnKeyring looks for a key of the host's session keyring from inside, without the profile that would deny it.
func TestOwnKeyring(t *testing.T) {
	t.Parallel()
	needRoot(t)
	// A process with a session keyring of its own, so that the machine's stays as it is.
	p := start(t, "keyhost", stateDir(t))
	if got := p.line(t); got != "host true, guest false" {
		t.Errorf("the key is there: %s; want it on the host alone", got)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

func init() {
	helpers["keyhost"] = func(args []string) error { // <dir>: has a key, and looks for it from inside a sandbox
		if len(args) == 1 { // a keyring is a thread's, and after exec the process's
			runtime.LockOSThread()
			if _, err := unix.KeyctlJoinSessionKeyring("nestbox-test"); err != nil {
				return err
			}
			if _, err := unix.AddKey("user", "nestbox-key", []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
				return err
			}
			return syscall.Exec("/proc/self/exe", []string{"keyhost", args[0], "again"}, os.Environ())
		}
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		defer eng.Close()
		sb, err := eng.Create(ctx, engine.CreateOptions{Seccomp: engine.SeccompUnconfined})
		if err != nil {
			return err
		}
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return err
		}
		if err := sb.FS().WriteFile("/tmp/self", self, 0o755); err != nil {
			return err
		}
		c := sb.Command("/tmp/self", "nestbox-key")
		c.Env = []string{helperVar + "=keyring"}
		out, err := c.Output()
		if err != nil {
			return err
		}
		id, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", "nestbox-key", 0)
		fmt.Printf("host %v, guest %v\n", id > 0 && err == nil, strings.HasPrefix(string(out), "true"))
		return nil
	}
}

// TestFilesOfTheAgent plants links to what of /proc is the agent's, for the host to follow.
func TestFilesOfTheAgent(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{})
	for _, name := range []string{"mem", "environ", "oom_score_adj", "pagemap", "maps", "fd", "fd/3", "exe", "root/etc/passwd", "cwd", "task/1/mem", "attr/current"} {
		for _, of := range []string{"self", "1", "thread-self"} {
			target := "/proc/" + of + "/" + name
			link := "/tmp/" + strings.ReplaceAll(of+"-"+name, "/", "-")
			if err := sb.FS().Symlink(target, link); err != nil {
				t.Fatal(err)
			}
			for _, flag := range []int{os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC} {
				f, err := sb.FS().OpenFile(link, flag, 0)
				if err != nil {
					continue
				}
				_ = f.Close()
				// What leads out of /proc is a file of the sandbox's like any other, or the agent's sealed program.
				if strings.HasPrefix(name, "root") || flag == os.O_RDONLY && (name == "cwd" || name == "exe") {
					continue
				}
				t.Errorf("%s was opened with %#x", target, flag)
			}
		}
	}
	if _, err := sb.FS().ReadFile("/proc/meminfo"); err != nil {
		t.Errorf("what isn't the agent's: %v", err)
	}
	var perr *fs.PathError
	if err := sb.FS().WriteFile("/proc/sys/kernel/hostname", []byte("x"), 0); !errors.As(err, &perr) {
		t.Errorf("write below /proc: got %v, want an *fs.PathError", err)
	}
	if err := sb.Command("true").Run(); err != nil {
		t.Errorf("a command afterwards: %v", err)
	}
}

// TestDirectoryAsStream lends a command what it could leave the sandbox by.
func TestDirectoryAsStream(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	path, err := os.OpenFile("/etc/hostname", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer path.Close()
	for _, f := range []*os.File{dir, path} {
		c := sb.Command("ls", "/proc/self/fd/0/..")
		c.Stdin = f
		if out, err := c.CombinedOutput(); !errors.Is(err, syscall.EISDIR) {
			t.Errorf("with %s as standard input: %q, %v, want EISDIR", f.Name(), out, err)
		}
	}
}

// TestNoProcessLeft has a guest take every process there may be. The agent then can't get a thread more, and goes on.
func TestNoProcessLeft(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	for _, user := range []string{"root", "user"} {
		sb := create(t, eng, engine.CreateOptions{User: user, Limits: engine.Limits{Processes: 32}})
		// The shell gives up when it can't fork.
		_ = sb.Command("sh", "-c", "while :; do sleep 1000 >/dev/null 2>&1 & done").Run()
		var all sync.WaitGroup
		for n := range 100 {
			all.Go(func() {
				dir := fmt.Sprintf("/tmp/d%d", n)
				for range 20 {
					if err := sb.FS().MkdirAll(dir+"/a/b/c", 0o755); err != nil {
						t.Error(err)
					}
					if err := sb.FS().RemoveAll(dir); err != nil {
						t.Error(err)
					}
					_ = sb.Command("true").Run() // for which there is no room
				}
				again, err := eng.Reconnect(t.Context(), sb.ID())
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := again.FS().Stat("/"); err != nil {
					t.Error(err)
				}
				if err := again.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		st, err := sb.Stats(t.Context())
		if err != nil || st.ProcessesRefused == 0 {
			t.Errorf("stats: %+v, %v, want processes refused", st, err)
		}
		if err := sb.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSilentAgent stops an agent, as a guest that has taken it over could. Calls with a context end with it.
func TestSilentAgent(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{})
	running := sb.Command("sleep", "1000")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	waiting := sb.CommandContext(ctx, "sleep", "1000")
	waiting.WaitDelay = 100 * time.Millisecond
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	pid := agentPID(t, eng, sb.ID())
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "all threads of the agent have stopped", func() bool {
		for _, tid := range list(t, fmt.Sprintf("/proc/%d/task", pid)) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, tid))
			if err != nil || !strings.Contains(string(stat), ") T ") {
				return false
			}
		}
		return true
	})
	soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	ended := make(chan string, 10)
	calls := map[string]func() error{
		"start":      sb.CommandContext(soon, "true").Run,
		"wait":       waiting.Wait,
		"keep alive": func() error { return sb.KeepAlive(soon, time.Minute) },
		"lease":      func() error { _, err := sb.Lease(soon); return err },
		"reconnect":  func() error { _, err := eng.Reconnect(soon, sb.ID()); return err },
		"kill":       running.Kill,
	}
	for name, f := range calls {
		go func() {
			if err := f(); err == nil {
				t.Errorf("%s went well", name)
			}
			ended <- name
		}()
	}
	for range calls {
		select {
		case name := <-ended:
			delete(calls, name)
		case <-time.After(20 * time.Second):
			t.Fatalf("these hang: %v", calls)
		}
	}
	if err := sb.Pause(soon); err == nil {
		t.Error("pause went well")
	}
	if err := sb.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if len(cgroupsOf(t, sb.ID())) > 0 {
		t.Error("the sandbox lives on without a handle")
	}
}

// TestAgentHangsUp has the agent's socket end every connection. The sandbox is not taken for one that has ended.
func TestAgentHangsUp(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	sb := create(t, eng, engine.CreateOptions{})
	pid := agentPID(t, eng, sb.ID())
	path := filepath.Join(dir, "sandboxes", sb.ID(), "agent.sock")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	if _, err := eng.Reconnect(t.Context(), sb.ID()); err == nil || errors.Is(err, engine.ErrExpired) {
		t.Errorf("reconnect: %v, want an error, and not that it has ended", err)
	}
	if l, err := eng.Lease(t.Context(), sb.ID()); err == nil {
		t.Errorf("lease: %+v, want an error", l)
	}
	if !running(pid) {
		t.Fatal("the agent was ended")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := sb.Command("true").Run(); err != nil {
		t.Errorf("command on the handle that is open: %v", err)
	}
}

// TestLeasedFile has a guest lease a file that the host works on. Nothing waits for the guest.
func TestLeasedFile(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Seccomp: engine.SeccompUnconfined}) // which denies leases otherwise
	putSelf(t, sb)
	if err := sb.FS().WriteFile("/tmp/f", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, line := guest(t, sb, "lease", "/tmp/f"); line != "leased" {
		t.Fatalf("lease: %s", line)
	}
	began := time.Now()
	for name, f := range map[string]func() error{
		"truncate": func() error { return sb.FS().Truncate("/tmp/f", 0) },
		"open":     func() error { _, err := sb.FS().Open("/tmp/f"); return err },
		"write":    func() error { return sb.FS().WriteFile("/tmp/f", nil, 0o644) },
	} {
		if err := f(); !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("%s: %v, want EAGAIN", name, err)
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestNoUserNamespace has a user of a sandbox try to become root in a namespace of its own.
func TestNoUserNamespace(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{User: "user"})
	if out, err := sb.Command("unshare", "--user", "--map-root-user", "true").CombinedOutput(); err == nil {
		t.Errorf("unshare, which util-linux has, went well: %s", out)
	}
}

// TestTCPMemory fills queues of TCP that nobody reads, which are the kernel's memory.
func TestTCPMemory(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Limits: engine.Limits{Memory: 128 << 20}})
	putSelf(t, sb)
	before := tcpMemory(t)
	_, line := guest(t, sb, "tcp")
	if took := tcpMemory(t) - before; took > 160<<20 {
		t.Errorf("queues of a sandbox with 128 MiB took %d MiB; the guest says %s", took>>20, line)
	}
}

// TestSocketMemory has what the kernel counts for nobody: full queues of netlink, and connections that nobody accepts. Who takes
// more than its memory by that is ended.
func TestSocketMemory(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	modest := create(t, eng, engine.CreateOptions{})
	putSelf(t, modest)
	_, _ = guest(t, modest, "netlink", "100") // some 90 MB of 512
	_, _ = guest(t, modest, "unaccepted", "1")
	for helper, n := range map[string]string{"netlink": "2000", "unaccepted": "1000"} {
		sb := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Memory: 64 << 20}, KeepAlive: time.Hour})
		putSelf(t, sb)
		c := sb.Command("/tmp/self", n)
		c.Env = []string{helperVar + "=" + helper}
		stdin, perr := c.StdinPipe()
		if err := errors.Join(perr, c.Start()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-sb.Done():
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: the sandbox lives", helper)
		}
		_ = stdin.Close() // until then the guest waits
		if l, err := eng.Lease(t.Context(), sb.ID()); err != nil || l.EndReason != lease.OOM {
			t.Errorf("%s: %+v, %v, want it ended for want of memory", helper, l, err)
		}
	}
	if err := modest.Command("true").Run(); err != nil {
		t.Errorf("a sandbox with a few full sockets: %v", err)
	}
}

func TestNetlinkQueues(t *testing.T) {
	const titles = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
	for _, tt := range []struct {
		name, lines string
		want        int64
		fails       bool
	}{
		{"none", "", 0, false},
		{"two", "0000000049f04171 0   3742777873 00000000 921600   12       0     2        0        2817293 \n" +
			"00000000f10a62f3 16  0          00000000 0        3        0     2        0        2817185 \n", 921615, false},
		{"too short", "0000000049f04171 0   18         00000000 5\n", 0, true},
		{"no number", "0000000049f04171 0   18         00000000 5        x        0     2        0        1\n", 0, true},
	} {
		got, err := engine.NetlinkQueues(strings.NewReader(titles + tt.lines))
		if got != tt.want || (err != nil) != tt.fails {
			t.Errorf("%s: %d, %v, want %d", tt.name, got, err, tt.want)
		}
	}
}

func init() {
	// Inside a sandbox, <n>: does that so many times, prints a line, waits.
	for helper, once := range map[string]func() error{"netlink": fillNetlink, "unaccepted": dontAccept} {
		helpers[helper] = func(args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return err
			}
			for range n {
				if err := once(); err != nil {
					return err
				}
			}
			fmt.Println("done")
			untilClosed()
			return nil
		}
	}
}

// fillNetlink opens a socket and asks about the loopback device for as long as it takes answers.
func fillNetlink() error {
	message := make([]byte, unix.NLMSG_HDRLEN+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(message, uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(message[unix.NLMSG_HDRLEN+4:], 1)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<30)
	for range 400 { // what is over is dropped
		if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil
		}
	}
	return nil
}

// dontAccept has a listener's queue full of connections, whose other ends are reset.
func dontAccept() error {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 1<<16)); err != nil {
		return err
	}
	to, err := unix.Getsockname(l)
	if err != nil {
		return err
	}
	for range 1000 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		_ = unix.Connect(fd, to) // which is done when it returns, or the queue is full
		err = errors.Join(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), unix.Close(fd))
		if err != nil {
			return err
		}
	}
	return nil
}

// tcpMemory is what the host's TCP takes, see proc_net_sockstat in the kernel's documents.
func tcpMemory(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "TCP:")
	rest, _, _ = strings.Cut(rest, "\n")
	_, mem, _ := strings.Cut(rest, " mem ")
	var pages int64
	if _, err := fmt.Sscan(mem, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func init() {
	// Inside a sandbox: fills TCP connections to itself, prints how much they took, waits.
	helpers["tcp"] = func([]string) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		var open []net.Conn
		piece := make([]byte, 16<<20)
		total := 0
		for range 32 {
			c, s, err := connectTo(l)
			if err != nil {
				break
			}
			open = append(open, c, s)
			_ = c.(*net.TCPConn).SetWriteBuffer(8 << 20)
			_ = s.(*net.TCPConn).SetReadBuffer(8 << 20)
			_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			n, _ := c.Write(piece)
			total += n
		}
		fmt.Println(total)
		untilClosed()
		runtime.KeepAlive(open)
		return nil
	}
}
