package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func init() {
	// <dir>: keeps a pool, prints a line when it is full, waits.
	helpers["pool"] = func(args []string) error {
		eng, err := engine.Open(context.Background(), engine.Options{Dir: args[0], Pool: []engine.PoolSpec{{Size: 3}}})
		if err != nil {
			return err
		}
		untilFull(eng)
		fmt.Println("full")
		untilClosed()
		return eng.Close()
	}
	// <dir> <step>: claims a sandbox of a pool and closes it, and dies after the step.
	helpers["diewarm"] = func(args []string) error {
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0], Pool: []engine.PoolSpec{{Size: 1}}})
		if err != nil {
			return err
		}
		untilFull(eng)
		fmt.Println(idsIn(args[0])[0])
		untilClosed()
		dieAfter(args[1])
		sb, err := eng.Create(ctx, engine.CreateOptions{KeepAlive: time.Minute})
		if err != nil {
			return err
		}
		if err := sb.KeepAlive(ctx, 0); err != nil {
			return err
		}
		return sb.Close()
	}
	// <dir>: creates a hundred sandboxes at once over a pool of two, and prints how many were in the making at a time.
	helpers["burst"] = burst
}

// untilFull waits until the first pool is full.
func untilFull(eng *engine.Engine) {
	for s := eng.PoolStats()[0]; s.Ready < s.Size; s = eng.PoolStats()[0] {
		time.Sleep(time.Millisecond) // there is no event of this
	}
}

func burst(args []string) error {
	ctx := context.Background()
	var mu sync.Mutex
	making, most := 0, 0
	engine.SetStepHook(func(step string) {
		mu.Lock()
		defer mu.Unlock()
		switch step {
		case "create directory":
			making++
			most = max(most, making)
		case "create hold":
			making--
		}
	})
	limits := engine.Limits{Memory: 64 << 20, Disk: 16 << 20}
	eng, err := engine.Open(ctx, engine.Options{Dir: args[0], Limits: limits, Pool: []engine.PoolSpec{{Size: 2}}})
	if err != nil {
		return err
	}
	ids, errs := make([]string, 100), make([]error, 100)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			sb, err := eng.Create(ctx, engine.CreateOptions{})
			if err == nil {
				ids[i] = sb.ID()
				err = sb.Command("true").Run()
			}
			errs[i] = err
		})
	}
	all.Wait()
	slices.Sort(ids)
	fmt.Println(len(slices.Compact(ids)), "made,", most <= engine.Turns())
	return errors.Join(append(errs, eng.Close())...)
}

// TestPool claims a sandbox with all that can be said at that time, and compares it with one that was made so.
func TestPool(t *testing.T) {
	t.Parallel()
	eng := openPool(t, "", engine.PoolSpec{Size: 1})
	if n := count(t, eng); n > 0 {
		t.Errorf("%d leases of what nobody has claimed", n)
	}
	opts := engine.CreateOptions{
		Metadata: map[string]string{"a": "1"}, KeepAlive: time.Minute, Grace: time.Second,
		Env: []string{"A=b"}, Dir: "/srv/work", User: "user", Hostname: "own",
		Limits: engine.Limits{Memory: 64 << 20, CPUs: 0.5, Processes: 40, OpenFiles: 100},
	}
	const script = "echo $A; pwd; id -u; uname -n; ulimit -n; stat -c %u .; echo $HOME"
	describe := func(sb *engine.Sandbox) (string, engine.Posture, lease.Lease) {
		out, err := sb.Command("sh", "-c", script).CombinedOutput()
		p, perr := sb.Posture(t.Context())
		l, lerr := sb.Lease(t.Context())
		if err := errors.Join(err, perr, lerr); err != nil {
			t.Fatal(err)
		}
		p.UID, p.GID = 0, 0
		return string(out), p, l
	}
	before := create(t, eng, engine.CreateOptions{Network: engine.NetworkHost})
	began := time.Now()
	warm := create(t, eng, opts)
	if s := eng.PoolStats()[0]; s.Hits != 1 || s.Misses != 0 {
		t.Fatalf("pool: %+v, want one hit", s)
	}
	if warm.ID() < before.ID() {
		t.Errorf("ID %s sorts before %s, which is older", warm.ID(), before.ID())
	}
	out, posture, l := describe(warm)
	if want := "b\n/srv/work\n1000\nown\n100\n1000\n/home/user\n"; out != want {
		t.Errorf("inside: got %q, want %q", out, want)
	}
	if l.CreatedAt.Before(began.Truncate(time.Millisecond)) || l.Grace != opts.Grace || l.ExpiresAt.Before(began.Add(time.Minute)) || l.Metadata["a"] != "1" || l.Holders != 1 {
		t.Errorf("lease: %+v", l)
	}
	awaitFull(t, eng) // or something would be in the making yet
	eng.EmptyPool()
	cold := create(t, eng, opts)
	wantOut, want, _ := describe(cold)
	if out != wantOut {
		t.Errorf("inside: got %q, when it is made so %q", out, wantOut)
	}
	if !slices.Equal(posture.Mounts, want.Mounts) || posture.Limits != want.Limits || posture.Seccomp != want.Seccomp ||
		!slices.Equal(posture.Capabilities, want.Capabilities) || fmt.Sprint(posture.Namespaces) != fmt.Sprint(want.Namespaces) {
		t.Errorf("posture:\n got %+v\nwant %+v", posture, want)
	}
}

func count(t *testing.T, eng *engine.Engine) (n int) {
	t.Helper()
	for _, err := range eng.List(t.Context(), lease.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestPoolMisses asks for what can't be had of the pool.
func TestPoolMisses(t *testing.T) {
	t.Parallel()
	eng := openPool(t, "", engine.PoolSpec{Size: 1, Create: engine.CreateOptions{Limits: engine.Limits{OpenFiles: 200}}})
	for name, opts := range map[string]engine.CreateOptions{
		"network":    {Network: engine.NetworkHost},
		"mount":      {Mounts: []engine.Mount{{Source: t.TempDir(), Target: "/data"}}},
		"disk":       {Limits: engine.Limits{Disk: 8 << 20, OpenFiles: 100}},
		"no disk":    {Limits: engine.Limits{Disk: -1, OpenFiles: 100}},
		"files":      {Limits: engine.Limits{OpenFiles: 201}},
		"all files":  {Limits: engine.Limits{OpenFiles: -1}},
		"template":   {Template: emptyTemplate(t), Limits: engine.Limits{OpenFiles: 100}},
		"unconfined": {Seccomp: engine.SeccompUnconfined, Limits: engine.Limits{OpenFiles: 100}},
		"profile":    {Seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, Limits: engine.Limits{OpenFiles: 100}},
	} {
		sb := create(t, eng, opts)
		p, err := sb.Posture(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if (p.Seccomp == "disabled") != (name == "unconfined") || p.Namespaces["net"] != (name != "network") {
			t.Errorf("%s: %s, %v", name, p.Seccomp, p.Namespaces)
		}
	}
	if s := eng.PoolStats()[0]; s.Hits != 0 || s.Misses != 0 || s.Ready != 1 {
		t.Errorf("pool: %+v, want it untouched", s)
	}
	sb := create(t, eng, engine.CreateOptions{Seccomp: engine.DefaultSeccomp(), Limits: engine.Limits{OpenFiles: 200, Memory: -1, CPUs: -1, Processes: -1, DiskIOPS: 500}})
	if s := eng.PoolStats()[0]; s.Hits != 1 {
		t.Errorf("pool: %+v, want a hit", s)
	}
	p, err := sb.Posture(t.Context())
	if want := (engine.Limits{OpenFiles: 200, Memory: -1, CPUs: -1, Processes: -1, DiskIOPS: 500}); err != nil || p.Limits != want {
		t.Errorf("claimed with %+v, %v, want %+v", p.Limits, err, want)
	}
}

// emptyTemplate makes a template of nothing but the usual directories.
func emptyTemplate(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"proc", "sys", "dev"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestPoolMetadata claims with the map that the pool was given, and that has changed since. The store loses what it has then.
func TestPoolMetadata(t *testing.T) {
	t.Parallel()
	mem := &forgetful{}
	md := map[string]string{"a": "1"}
	eng := open(t, "", func(o *engine.Options) {
		o.Store, o.Pool = mem, []engine.PoolSpec{{Size: 1, Create: engine.CreateOptions{Metadata: md}}}
	})
	awaitFull(t, eng)
	md["a"] = "2"
	sb := create(t, eng, engine.CreateOptions{Metadata: md})
	if s := eng.PoolStats()[0]; s.Hits != 1 {
		t.Errorf("pool: %+v, want a hit", s)
	}
	mem.forget()
	if l, err := eng.Lease(t.Context(), sb.ID()); err != nil || l.Metadata["a"] != "2" {
		t.Errorf("got %+v, %v, want what the claim said", l, err)
	}
}

// TestPoolNeverReuses looks for what another has left.
func TestPoolNeverReuses(t *testing.T) {
	t.Parallel()
	eng := openPool(t, "", engine.PoolSpec{Size: 1})
	pids := map[int]bool{}
	for range 5 {
		awaitFull(t, eng)
		sb := create(t, eng, engine.CreateOptions{})
		if _, err := sb.FS().Stat("mine"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file of another's: %v", err)
		}
		if err := sb.FS().WriteFile("mine", nil, 0o600); err != nil {
			t.Error(err)
		}
		pids[agentPID(t, eng, sb.ID())] = true
		if err := sb.Close(); err != nil {
			t.Error(err)
		}
	}
	if s := eng.PoolStats()[0]; s.Hits != 5 || len(pids) != 5 {
		t.Errorf("pool: %+v, %d agents, want 5 of each", s, len(pids))
	}
}

// TestPoolIsPrivate: another engine neither claims nor sweeps what is in the pool, nor connects to it.
func TestPoolIsPrivate(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := openPool(t, dir, engine.PoolSpec{Size: 1})
	name := list(t, filepath.Join(dir, "pool"))[0]
	other := open(t, dir) // which sweeps
	if _, err := other.Reconnect(t.Context(), name); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Reconnect: %v, want ErrNotFound", err)
	}
	if err := other.Kill(t.Context(), name); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Kill: %v, want ErrNotFound", err)
	}
	create(t, other, engine.CreateOptions{})
	create(t, eng, engine.CreateOptions{})
	if s := eng.PoolStats()[0]; s.Hits != 1 {
		t.Errorf("pool: %+v, want a hit", s)
	}
}

// TestPoolGoesWithItsProcess kills a process that keeps a pool, and then one that closes its engine.
func TestPoolGoesWithItsProcess(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, how := range []string{"killed", "closed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			dir := stateDir(t)
			p := start(t, "pool", dir)
			p.line(t)
			names := idsIn(dir)
			if len(names) < 3 {
				t.Fatalf("in the pool: %v", names)
			}
			var pids []int
			for _, name := range names {
				pids = append(pids, processesOf(t, dir, name)...)
			}
			if how == "killed" {
				p.kill()
				eventually(t, 10*time.Second, "no process is left", func() bool { return !slices.ContainsFunc(pids, running) })
				open(t, dir)
			} else if err := errors.Join(p.stdin.Close(), p.Wait()); err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				checkGone(t, dir, name)
			}
		})
	}
}

// TestPoolCrash kills the process after each step of claiming a sandbox and removing it. One that is claimed and kept
// alive lives on, any other is found by the next Open, whatever there is of it.
func TestPoolCrash(t *testing.T) {
	t.Parallel()
	needRoot(t)
	kept := []string{"create claim", "create record"}
	for _, step := range slices.Concat([]string{"create facts", "create publish"}, kept, clearSteps) {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			dir := stateDir(t)
			p := start(t, "diewarm", dir, step)
			name := p.line(t)
			_ = p.stdin.Close()
			err := p.Wait()
			if status, ok := p.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("the process ended with %v, want it killed", err)
			}
			eng := open(t, dir)
			live := 0
			for l, err := range eng.List(t.Context(), lease.Query{States: []lease.State{lease.Running}}) {
				if err != nil {
					t.Fatal(err)
				}
				live++
				if err := eng.Kill(t.Context(), l.ID); err != nil {
					t.Error(err)
				}
			}
			if want := slices.Contains(kept, step); live == 1 != want {
				t.Errorf("%d live on", live)
			}
			checkGone(t, dir, name)
		})
	}
}

// TestPoolReplaces kills what is in the pool: it is made again, and a Create at that moment is none the worse.
func TestPoolReplaces(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := openPool(t, dir, engine.PoolSpec{Size: 2})
	names := idsIn(dir)
	for _, pid := range killAll(t, dir, names) {
		eventually(t, 10*time.Second, "the process is gone", func() bool { return !running(pid) })
	}
	sb := create(t, eng, engine.CreateOptions{})
	if err := sb.Command("true").Run(); err != nil {
		t.Error(err)
	}
	eventually(t, 10*time.Second, "those that ended are gone", func() bool {
		return !slices.ContainsFunc(idsIn(dir), func(name string) bool { return slices.Contains(names, name) })
	})
	awaitFull(t, eng)
	for _, name := range names {
		if groups := cgroupsOf(t, name); len(groups) > 0 {
			t.Errorf("left: %v", groups)
		}
	}
}

// killAll kills the processes of sandboxes, and gives their numbers.
func killAll(t *testing.T, dir string, names []string) (pids []int) {
	t.Helper()
	for _, name := range names {
		pids = append(pids, processesOf(t, dir, name)...)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) { // it went with its PID 1
			t.Error(err)
		}
	}
	return pids
}

func TestPoolWarmup(t *testing.T) {
	t.Parallel()
	eng := openPool(t, "", engine.PoolSpec{Size: 1, Warmup: []string{"sh", "-c", "id -u > ~/who; sleep 1000 & echo $! > ~/pid"},
		Create: engine.CreateOptions{User: "user"}})
	sb := create(t, eng, engine.CreateOptions{User: "user"})
	out, err := sb.Command("sh", "-c", "cat who; kill -0 `cat pid` && echo runs").CombinedOutput()
	if string(out) != "1000\nruns\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
	for text, argv := range map[string][]string{
		"exit status 3": {"sh", "-c", "exit 3"},
		"no such file":  {"nestbox-missing"},
	} {
		eng := open(t, "", func(o *engine.Options) { o.Pool = []engine.PoolSpec{{Size: 1, Warmup: argv}} })
		var s engine.PoolStats
		eventually(t, 20*time.Second, "the pool tells of its error", func() bool { s = eng.PoolStats()[0]; return s.Err != nil })
		if s.Ready != 0 || !strings.Contains(s.Err.Error(), text) || !strings.Contains(s.Err.Error(), "Warmup") {
			t.Errorf("pool: %+v, want an error with %q", s, text)
		}
		create(t, eng, engine.CreateOptions{})
		if s := eng.PoolStats()[0]; s.Misses != 1 {
			t.Errorf("pool: %+v, want a miss", s)
		}
	}
}

// TestPoolOfOneThatFails: what can't be made isn't in the way of what can.
func TestPoolOfOneThatFails(t *testing.T) {
	t.Parallel()
	eng := open(t, "", func(o *engine.Options) {
		o.Pool = []engine.PoolSpec{{Size: 1, Warmup: []string{"false"}}, {Size: 2, Warmup: []string{"true"}}}
	})
	eventually(t, 20*time.Second, "the second pool is full, and the first tells of its error", func() bool {
		s := eng.PoolStats()
		return s[1].Ready == s[1].Size && s[0].Err != nil
	})
}

// TestPoolClaimFails asks for less memory than what is ready takes. One is made then, and that costs the pool one sandbox,
// and not all, as each would be refused.
func TestPoolClaimFails(t *testing.T) {
	t.Parallel()
	eng := openPool(t, "", engine.PoolSpec{Size: 3, Warmup: []string{"sh", "-c", "head -c 40000000 /dev/zero > /dev/shm/full"}})
	sb, err := eng.Create(t.Context(), engine.CreateOptions{Limits: engine.Limits{Memory: 24 << 20}})
	if err == nil {
		err = sb.Close()
	}
	if s := eng.PoolStats()[0]; err != nil || s.Hits != 0 || s.Ready < 2 {
		t.Errorf("pool: %+v, want no hit, and two that are ready; the sandbox: %v", s, err)
	}
}

// TestPoolCloses closes an engine at the moment when what is in its pool ends by itself.
func TestPoolCloses(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := openPool(t, dir, engine.PoolSpec{Size: 4})
	names := idsIn(dir)
	killAll(t, dir, names)
	if err := eng.Close(); err != nil {
		t.Error(err)
	}
	if s := eng.PoolStats(); len(s) != 1 || s[0].Ready != 0 {
		t.Errorf("pools of an engine that is closed: %+v", s)
	}
	for _, name := range names {
		checkGone(t, dir, name)
	}
}

func TestPoolInput(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, tc := range []struct {
		name string
		spec engine.PoolSpec
		want error
	}{
		{"no size", engine.PoolSpec{}, fs.ErrInvalid},
		{"negative", engine.PoolSpec{Size: -1}, fs.ErrInvalid},
		{"too many", engine.PoolSpec{Size: 4097}, fs.ErrInvalid},
		{"template", engine.PoolSpec{Size: 1, Create: engine.CreateOptions{Template: "missing"}}, engine.ErrTemplateNotFound},
		{"options", engine.PoolSpec{Size: 1, Create: engine.CreateOptions{Limits: engine.Limits{Memory: 1}}}, fs.ErrInvalid},
		{"warm-up", engine.PoolSpec{Size: 1, Warmup: []string{}}, fs.ErrInvalid},
		{"warm-up with NUL", engine.PoolSpec{Size: 1, Warmup: []string{"a\x00b"}}, fs.ErrInvalid},
		{"nameless warm-up", engine.PoolSpec{Size: 1, Warmup: []string{"", "x"}}, fs.ErrInvalid},
	} {
		eng, err := engine.Open(t.Context(), engine.Options{Dir: stateDir(t), Pool: []engine.PoolSpec{{Size: 1}, tc.spec}})
		if !errors.Is(err, tc.want) || !strings.Contains(fmt.Sprint(err), "Pool[1]") {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
		if err == nil {
			_ = eng.Close()
		}
	}
	// A claim with options that turn out to be wrong is refused as any.
	eng := openPool(t, "", engine.PoolSpec{Size: 1})
	if _, err := eng.Create(t.Context(), engine.CreateOptions{User: "nobody-knows"}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("unknown user: %v, want fs.ErrInvalid", err)
	}
}

// TestBurst has far more Creates at once than the pool holds.
func TestBurst(t *testing.T) {
	needRoot(t)
	dir := stateDir(t)
	p := start(t, "burst", dir)
	if got, want := p.line(t), "100 made, true"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// TestTurns: who waits to make a sandbox gives up with its context, and what was waited for stays for others.
func TestTurns(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	release := eng.TakeTurns(t.Context())
	ctx, cancel := context.WithCancelCause(t.Context())
	waits := waitedFor{ctx, make(chan struct{}, 16)}
	failed := make(chan error)
	go func() {
		_, err := eng.Create(waits, engine.CreateOptions{})
		failed <- err
	}()
	<-waits.told
	enough := errors.New("enough")
	cancel(enough)
	if err := <-failed; !errors.Is(err, enough) {
		t.Errorf("Create: %v, want the cause of its context", err)
	}
	release()
	create(t, eng, engine.CreateOptions{})
}

// waitedFor is a context that tells when somebody begins to wait for its end.
type waitedFor struct {
	context.Context
	told chan struct{}
}

func (c waitedFor) Done() <-chan struct{} {
	select {
	case c.told <- struct{}{}:
	default:
	}
	return c.Context.Done()
}

// TestPoolTemplateReplaced replaces a template, as by a deployment, and removes it: what was made of it is of no use.
func TestPoolTemplateReplaced(t *testing.T) {
	t.Parallel()
	dir, next := emptyTemplate(t), emptyTemplate(t)
	if err := os.WriteFile(filepath.Join(next, "version"), []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	eng := openPool(t, "", engine.PoolSpec{Size: 1, Create: engine.CreateOptions{Template: dir}})
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Rename(next, dir)); err != nil {
		t.Fatal(err)
	}
	sb := create(t, eng, engine.CreateOptions{Template: dir})
	if data, err := sb.FS().ReadFile("/version"); string(data) != "2" || err != nil {
		t.Errorf("the template's file: %q, %v, want that of the new one", data, err)
	}
	awaitFull(t, eng)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := eng.Create(t.Context(), engine.CreateOptions{Template: dir}); !errors.Is(err, engine.ErrTemplateNotFound) {
		t.Errorf("a template that is gone: %v, want ErrTemplateNotFound", err)
	}
}

// TestPoolSlowWarmup: a warm-up that never ends keeps no other stock from being filled.
func TestPoolSlowWarmup(t *testing.T) {
	t.Parallel()
	eng := open(t, "", func(o *engine.Options) {
		o.Pool = []engine.PoolSpec{
			{Size: 2, Warmup: []string{"sleep", "1000"}},
			{Size: 1, Create: engine.CreateOptions{Network: engine.NetworkHost}},
		}
	})
	eventually(t, 20*time.Second, "the other stock is full", func() bool { return eng.PoolStats()[1].Ready == 1 })
	if s := eng.PoolStats()[0]; s.Ready != 0 || s.Err != nil {
		t.Errorf("the first stock: %+v, want it still warming up", s)
	}
}
