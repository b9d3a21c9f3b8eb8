package engine_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
	"github.com/nestbox/nestbox/rootfs"
)

// helperVar names the helper that this program is to be, in the place of running tests.
const helperVar = "NESTBOX_TEST_HELPER"

// helpers are what a second process of a test does. Each is given its arguments, prints lines, and its error
// is the process's end.
var helpers = map[string]func(args []string) error{}

func TestMain(m *testing.M) {
	name := os.Getenv(helperVar)
	if name == "" {
		if os.Geteuid() != 0 { // an example can't skip itself; tests do, see needRoot
			_ = flag.Set("test.skip", "^Example$")
		}
		os.Exit(m.Run())
	}
	if err := helpers[name](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// process is a second process of a test.
type process struct {
	*exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// start starts a helper. It is killed at the test's end if it still runs.
func start(t *testing.T, helper string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command("/proc/self/exe", args...)}
	p.Env = append(os.Environ(), helperVar+"="+helper)
	p.Stderr = os.Stderr
	stdin, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin, p.out = stdin, bufio.NewReader(stdout)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// line reads the next line that the helper prints.
func (p *process) line(t *testing.T) string {
	t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("reading from helper: %v", err)
	}
	return strings.TrimSuffix(s, "\n")
}

// kill ends the helper by SIGKILL.
func (p *process) kill() {
	_ = p.Process.Kill()
	_ = p.Wait()
}

// untilClosed waits until the test closes a helper's standard input.
func untilClosed() { _, _ = io.Copy(io.Discard, os.Stdin) }

// needRoot skips a test that makes sandboxes where none can be made.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		const why = "sandboxes need root: run the tests as root"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
}

// open opens an engine on a directory, or on one of its own. What it leaves is looked at when the test ends.
func open(t testing.TB, dir string, opts ...func(*engine.Options)) *engine.Engine {
	t.Helper()
	needRoot(t)
	if dir == "" {
		dir = stateDir(t)
	}
	o := engine.Options{Dir: dir}
	for _, f := range opts {
		f(&o)
	}
	eng, err := engine.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := eng.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
	})
	return eng
}

// stateDir gives a state directory in which nothing may be left when the test ends.
func stateDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { checkNothingLeft(t, dir) })
	return dir
}

// sandboxesIn gives the directories of the sandboxes in a state directory, those that are nobody's too.
func sandboxesIn(dir string) []string {
	var all []string
	for _, in := range []string{"pool", "sandboxes"} {
		entries, _ := os.ReadDir(filepath.Join(dir, in)) // which sorts, and where there is none tells nothing
		for _, e := range entries {
			all = append(all, filepath.Join(in, e.Name()))
		}
	}
	return all
}

// checkNothingLeft checks that no sandbox, and nothing of one, is left of a state directory.
func checkNothingLeft(t testing.TB, dir string) {
	t.Helper()
	// Who opens an engine finds what was cut off. Sandboxes that still live are the test's own fault.
	for _, name := range sandboxesIn(dir) {
		t.Errorf("left: %s", name)
	}
	for _, name := range list(t, filepath.Join(dir, "trash")) { // an engine that closes leaves it to the next
		if err := rootfs.RemoveTree(cleanupContext(), filepath.Join(dir, "trash", name)); err != nil {
			t.Errorf("left in trash: %s, which can't be removed: %v", name, err)
		}
		for _, group := range cgroupsOf(t, name) {
			t.Errorf("left: cgroup %s", group)
		}
	}
	for _, name := range list(t, engine.IDRegistry) {
		if owner, err := os.Readlink(filepath.Join(engine.IDRegistry, name)); err == nil && strings.HasPrefix(owner, dir+"/") {
			t.Errorf("left: range of user ids %s of %s", name, owner)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("left: a mount of %s", dir)
	}
}

// list gives the names in a directory, none if it isn't there.
func list(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// cgroupsOf gives the cgroups of a sandbox, in all hierarchies.
func cgroupsOf(t testing.TB, id string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/nestbox/", "/sys/fs/cgroup/*/nestbox/"} {
		m, err := filepath.Glob(pattern + id)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, m...)
	}
	return found
}

// create creates a sandbox. It is killed when the test ends, if it still lives.
func create(t testing.TB, eng *engine.Engine, opts engine.CreateOptions) *engine.Sandbox {
	t.Helper()
	sb, err := eng.Create(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Kill(cleanupContext()); err != nil && !errors.Is(err, engine.ErrClosed) && !errors.Is(err, engine.ErrEnded) {
			t.Errorf("kill: %v", err)
		}
		if err := eng.Kill(cleanupContext(), sb.ID()); err != nil && !errors.Is(err, engine.ErrClosed) {
			t.Errorf("kill: %v", err)
		}
	})
	return sb
}

// eventually waits until a condition holds that nothing announces, such as the end of another's process.
func eventually(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// running tells whether a process runs, and isn't merely not waited for.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// agentPID gives the host's number of a sandbox's agent.
func agentPID(t testing.TB, eng *engine.Engine, id string) int {
	t.Helper()
	pid, err := eng.AgentPID(id)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// endReason gives how a sandbox has ended.
func endReason(t testing.TB, eng *engine.Engine, id string) lease.EndReason {
	t.Helper()
	l, err := eng.Lease(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if l.State != lease.Ended || l.EndedAt.IsZero() {
		t.Errorf("lease of %s: state %q, ended at %v, want it ended", id, l.State, l.EndedAt)
	}
	return l.EndReason
}
