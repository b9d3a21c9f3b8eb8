package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// abuse is something that one guest does, and that nobody else is to notice.
type abuse struct {
	name   string
	limits engine.Limits // zero fields: the default
	does   func(worst func()) error
	// refused is what the sandbox's own commands and files may be told meanwhile, beside that all is well.
	refused []error
	// slow: each of its processes holds a lock on its memory nearly all the time, for which who asks for its arguments
	// waits, see proc_pid_cmdline(5).
	slow bool
}

// errOOM stands for a command that ended for want of memory.
var errOOM = errors.New("out of memory")

var abuses = []abuse{
	{name: "forks", does: thenWait(bombs), refused: []error{syscall.EAGAIN}, slow: true},
	{name: "forks of 64", limits: engine.Limits{Processes: 64}, does: thenWait(bombs), refused: []error{syscall.EAGAIN}, slow: true},
	{name: "orphans", does: endlessly(16, leaveOrphans), refused: []error{syscall.EAGAIN}, slow: true},
	{name: "zombies", limits: engine.Limits{Processes: 5000}, does: thenWait(zombies), refused: []error{syscall.EAGAIN}},
	{name: "memory", limits: small, does: hogs(4, takeAnonymous), refused: noMemory},
	{name: "mappings", limits: small, does: hogs(4, takeMappings), refused: noMemory},
	{name: "memory files", limits: small, does: hogs(4, takeMemfd), refused: noMemory},
	{name: "shared memory", limits: small, does: hogs(4, takeSharedMemory), refused: nobodys},
	{name: "pipes", limits: small, does: hogs(4, takePipes), refused: noMemory},
	{name: "unix sockets", limits: small, does: hogs(4, takeSockets), refused: noMemory},
	{name: "shm", limits: small, does: thenWait(fillShm), refused: noMemory},
	{name: "page cache", limits: small, does: churnCache, refused: noMemory},
	{name: "names", limits: small, does: lookForNothing, refused: noMemory},
	{name: "disk", limits: engine.Limits{Disk: 256 << 20}, does: refillDisk, refused: []error{syscall.ENOSPC}},
	{name: "inodes", limits: engine.Limits{Disk: 256 << 20}, does: thenWait(fillInodes), refused: []error{syscall.ENOSPC}},
	{name: "sync", does: syncAlways},
	{name: "transfers", does: endlessly(16, transfer)},
	{name: "open files", does: together(25, openMany)},
	{name: "inotify", does: thenWait(watchAll)},
	{name: "timers", does: together(16, setTimers)},
	{name: "epoll", does: together(8, pollMany)},
	{name: "terminals", does: thenWait(openTerminals)},
	{name: "connections", does: thenWait(connectMany)},
	{name: "processor", does: endlessly(64, burn)},
	{name: "groups", does: endlessly(32, playGroups), refused: []error{syscall.EAGAIN}, slow: true},
	{name: "renames", does: swapNames},
}

var (
	small = engine.Limits{Memory: 96 << 20}
	// The agent waits for memory as well, for as long as its handle does.
	noMemory = []error{syscall.ENOMEM, errOOM, context.DeadlineExceeded}
	// System V shared memory stays when its maker was killed for it: the kernel may have nobody left to end but the agent.
	nobodys = append([]error{engine.ErrEnded, engine.ErrExpired}, noMemory...)
)

const (
	// answerTimeout is how long a sandbox that is abused may take to say something to its host.
	answerTimeout = 5 * time.Second
	// endTimeout is how long it may take to end.
	endTimeout = 20 * time.Second
	// hostMemory is how much more this process may have at the most, for whatever a guest does.
	hostMemory = 64 << 20
)

// TestAbuse has a guest do its worst within the limits of its sandbox. That one still answers, is ended at once and
// leaves nothing; the host and another sandbox go on. It runs alone, as it counts what the process has.
func TestAbuse(t *testing.T) {
	h := newAbused(t)
	for n, a := range abuses {
		t.Run(a.name, func(t *testing.T) { // each ends in one of two ways, as all take too long in both
			if n%2 == 0 {
				h.run(t, a, "root", (*abused).kill)
			} else if !testing.Short() {
				h.run(t, a, "user", (*abused).close)
			}
		})
	}
}

// abused is what is there beside the abuse.
type abused struct {
	dir   string
	eng   *engine.Engine
	other *engine.Sandbox
	made  []string
}

func newAbused(t *testing.T) *abused {
	t.Helper()
	dir := stateDir(t)
	h := &abused{dir: dir, eng: open(t, dir)}
	h.other = create(t, h.eng, engine.CreateOptions{})
	h.checkHost(t) // also makes what is made once
	return h
}

// run has a guest of a user abuse its sandbox, which is ended by end.
func (h *abused) run(t *testing.T, a abuse, user string, end func(*abused, *testing.T, *engine.Sandbox)) {
	t.Helper()
	before := h.begin(t)
	sb := h.create(t, engine.CreateOptions{Limits: a.limits, User: user})
	began := time.Now()
	startAbuse(t, sb, a.name)
	worst := time.Since(began)
	h.checkAnswers(t, sb, a)
	h.checkHost(t)
	began = time.Now()
	end(h, t, sb)
	ended := time.Since(began)
	h.checkEnd(t, sb, before)
	t.Logf("as %s: at its worst after %v, ended in %v, nothing left after %v", user, worst.Round(time.Millisecond),
		ended.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// create creates a sandbox that has this program as /tmp/self, without a copy of it that counts for its limits.
func (h *abused) create(t testing.TB, opts engine.CreateOptions) *engine.Sandbox {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	opts.Mounts = append(opts.Mounts, engine.Mount{Source: self, Target: "/tmp/self"})
	sb := create(t, h.eng, opts)
	h.made = append(h.made, sb.ID())
	return sb
}

// startAbuse starts a guest, and waits until it is at its worst.
func startAbuse(t testing.TB, sb *engine.Sandbox, name string) {
	t.Helper()
	c := sb.Command("/tmp/self", name)
	var stderr engine.Excerpt
	c.Stderr = &stderr
	_, err := startHelper(t, c, "abuse").Read(make([]byte, 16))
	t.Cleanup(func() { // its streams stay open until the sandbox ends, which it has if all went well
		_ = sb.Kill(cleanupContext())
		_ = c.Wait()
	})
	if err != nil {
		_ = sb.Kill(cleanupContext())
		t.Fatalf("the guest ended before it was at its worst: %v, %s", err, stderr.Bytes())
	}
}

// checkAnswers checks that the sandbox does what it is told to, or says why not.
func (h *abused) checkAnswers(t *testing.T, sb *engine.Sandbox, a abuse) {
	t.Helper()
	for _, tt := range []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"command", func(ctx context.Context) error {
			c := sb.CommandContext(ctx, "true")
			c.WaitDelay = time.Second
			return c.Run()
		}},
		{"stat", func(context.Context) error { _, err := sb.FS().Stat("/"); return err }},
		{"write", func(context.Context) error { return sb.FS().WriteFile("/tmp/answer", []byte("answer"), 0o600) }},
		{"list", func(context.Context) error { _, err := sb.FS().ReadDir("/etc"); return err }},
		{"keep alive", func(ctx context.Context) error { return sb.KeepAlive(ctx, 0) }},
		{"stats", func(ctx context.Context) error { _, err := sb.Stats(ctx); return err }},
		{"reconnect", func(ctx context.Context) error {
			again, err := h.eng.Reconnect(ctx, sb.ID())
			if err != nil {
				return err
			}
			return again.Close()
		}},
		{"processes", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, err := sb.Processes(ctx)
			if a.slow && errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			return err
		}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), answerTimeout)
		began := time.Now()
		if err := tt.do(ctx); !among(err, a.refused) {
			t.Errorf("%s: got %v, want none of that, or one of %v", tt.name, err, a.refused)
		}
		if took := time.Since(began); took > 2*answerTimeout {
			t.Errorf("%s took %v", tt.name, took)
		} else if took > time.Second {
			t.Logf("%s took %v", tt.name, took)
		}
		cancel()
	}
}

// among tells whether an error is one of those that are expected.
func among(err error, expected []error) bool {
	if err == nil {
		return true
	}
	var exit *engine.ExitError
	oom := errors.As(err, &exit) && exit.OOM
	for _, want := range expected {
		if errors.Is(err, want) || oom && want == errOOM {
			return true
		}
	}
	return false
}

// checkHost checks that another sandbox works, and that one can be made.
func (h *abused) checkHost(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), endTimeout)
	defer cancel()
	if err := h.other.CommandContext(ctx, "true").Run(); err != nil {
		t.Errorf("another sandbox: %v", err)
	}
	sb, err := h.eng.Create(ctx, engine.CreateOptions{})
	if err != nil {
		t.Fatalf("another can't be made: %v", err)
	}
	h.made = append(h.made, sb.ID())
	if err := sb.CommandContext(ctx, "true").Run(); err != nil {
		t.Errorf("a new sandbox: %v", err)
	}
	if err := sb.Close(); err != nil {
		t.Errorf("a new sandbox: %v", err)
	}
}

func (h *abused) kill(t *testing.T, sb *engine.Sandbox) {
	t.Helper()
	began := time.Now()
	if err := sb.Kill(t.Context()); err != nil && !errors.Is(err, engine.ErrEnded) {
		t.Errorf("kill: %v", err)
	}
	if took := time.Since(began); took > endTimeout {
		t.Errorf("kill took %v", took)
	}
}

func (h *abused) close(t *testing.T, sb *engine.Sandbox) {
	t.Helper()
	began := time.Now()
	if err := sb.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if took := time.Since(began); took > endTimeout {
		t.Errorf("close took %v", took)
	}
}

// footing is what the host has before an abuse.
type footing struct {
	usage
	files int64 // open on the whole machine
}

// begin is what there is before an abuse. From now on the most that this process has of memory is noted.
func (h *abused) begin(t *testing.T) footing {
	t.Helper()
	debug.FreeOSMemory()
	resetPeak(t)
	return footing{measure(t, h.dir, h.made), openOnHost(t)}
}

// checkEnd checks that nothing of a sandbox is left, and that the host was not made to take much.
func (h *abused) checkEnd(t *testing.T, sb *engine.Sandbox, before footing) {
	t.Helper()
	h.awaitEnd(t, sb, before, endTimeout)
}

// awaitEnd is checkEnd for trees that take long.
func (h *abused) awaitEnd(t *testing.T, sb *engine.Sandbox, before footing, within time.Duration) {
	t.Helper()
	select {
	case <-sb.Done():
	case <-time.After(endTimeout):
		t.Fatalf("the handle isn't done after %v", endTimeout)
	}
	if err := sb.Err(); !errors.Is(err, engine.ErrEnded) {
		t.Errorf("the handle says %v, want that the sandbox has ended", err)
	}
	if now, peak := memoryOf(t, "VmRSS"), memoryOf(t, "VmHWM"); peak > now+hostMemory {
		t.Errorf("this process took %d MiB at the most, %d now", peak>>20, now>>20)
	}
	if _, err := os.Lstat(filepath.Join(h.dir, "sandboxes", sb.ID())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the sandbox's directory: %v, want it gone", err)
	}
	if groups := cgroupsOf(t, sb.ID()); len(groups) > 0 {
		t.Errorf("left: cgroups %v", groups)
	}
	var after footing
	defer func() {
		if t.Failed() {
			t.Logf("before %+v, after %+v", before, after)
		}
	}()
	eventually(t, within, "its tree is removed", func() bool { return len(list(t, filepath.Join(h.dir, "trash"))) == 0 })
	eventually(t, endTimeout, "usage is as before", func() bool {
		runtime.GC()
		after = footing{measure(t, h.dir, h.made), openOnHost(t)}
		return after.descriptors <= before.descriptors+4 && after.goroutines <= before.goroutines &&
			after.threads <= before.threads+8 && after.cgroups <= before.cgroups && after.entries <= before.entries &&
			after.ids <= before.ids && after.loops <= before.loops+8 && after.files <= before.files+20_000
	})
}

// openOnHost is how many files are open on the machine, see proc_sys_fs(5). Others open some too.
func openOnHost(t *testing.T) (n int64) {
	t.Helper()
	data, err := os.ReadFile("/proc/sys/fs/file-nr")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(data), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// memoryOf is a field of proc_pid_status(5) that has a size, in bytes.
func memoryOf(t *testing.T, field string) (n int64) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), field+":")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// resetPeak has VmHWM be what is there now, see clear_refs in proc_pid_clear_refs(5).
func resetPeak(t *testing.T) {
	t.Helper()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}
