package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
	"github.com/nestbox/nestbox/rootfs"
	"github.com/nestbox/nestbox/store"
)

// TestCreateBadInput gives Create what it must refuse. Each time nothing is left, not even for a moment.
func TestCreateBadInput(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	aFile := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(aFile, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	badProc := t.TempDir()
	if err := os.Symlink("/proc", filepath.Join(badProc, "proc")); err != nil {
		t.Fatal(err)
	}
	many := map[string]string{}
	for i := range 10_000 {
		many[fmt.Sprint(i)] = ""
	}
	var templateErr *rootfs.TemplateError
	isTemplate := func(err error) bool { return errors.As(err, &templateErr) }
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	tests := []struct {
		name string
		opts engine.CreateOptions
		is   func(error) bool
		text string // which the error has, to say what to do
	}{
		{"unknown template", engine.CreateOptions{Template: "nope"}, is(engine.ErrTemplateNotFound), "nope"},
		{"template with a strange name", engine.CreateOptions{Template: "../x"}, is(engine.ErrTemplateNotFound), "letters"},
		{"template that is missing", engine.CreateOptions{Template: "/nonexistent/rootfs"}, is(engine.ErrTemplateNotFound), "/nonexistent/rootfs"},
		{"template that is a file", engine.CreateOptions{Template: aFile}, isTemplate, "no directory"},
		{"template with a link at /proc", engine.CreateOptions{Template: badProc}, isTemplate, "symbolic link"},
		{"metadata with 10000 keys", engine.CreateOptions{Metadata: many}, is(fs.ErrInvalid), "at most 256"},
		{"metadata of 1 MiB", engine.CreateOptions{Metadata: map[string]string{"k": strings.Repeat("x", 1<<20)}}, is(fs.ErrInvalid), "at most 65536"},
		{"metadata with an empty key", engine.CreateOptions{Metadata: map[string]string{"": "x"}}, is(fs.ErrInvalid), "1 to 256"},
		{"metadata that is no text", engine.CreateOptions{Metadata: map[string]string{"k": "\xff"}}, is(fs.ErrInvalid), "UTF-8"},
		{"negative keep-alive", engine.CreateOptions{KeepAlive: -1}, is(fs.ErrInvalid), "negative"},
		{"keep-alive over the bound", engine.CreateOptions{KeepAlive: 2 * time.Hour}, is(engine.ErrKeepAliveTooLong), "1h0m0s"},
		{"negative grace", engine.CreateOptions{Grace: -1}, is(fs.ErrInvalid), "negative"},
		{"environment", engine.CreateOptions{Env: []string{"NOVALUE"}}, is(fs.ErrInvalid), "KEY=value"},
		{"relative directory", engine.CreateOptions{Dir: "work"}, is(fs.ErrInvalid), "absolute"},
		{"directory that is a file", engine.CreateOptions{Dir: "/etc/passwd"}, is(fs.ErrInvalid), "not a directory"},
		{"unknown user", engine.CreateOptions{User: "nobody-there"}, is(fs.ErrInvalid), "/etc/passwd"},
		{"user of two lines", engine.CreateOptions{User: "a\nb"}, is(fs.ErrInvalid), "uid"},
		{"hostname", engine.CreateOptions{Hostname: "a b"}, is(fs.ErrInvalid), "letters"},
		{"hostname that ends with a dot", engine.CreateOptions{Hostname: "a."}, is(fs.ErrInvalid), "letters"},
		{"template that is no text", engine.CreateOptions{Template: "/\xff"}, is(fs.ErrInvalid), "UTF-8"},
		{"directory that is too long", engine.CreateOptions{Dir: "/" + strings.Repeat("a/", 2048)}, is(fs.ErrInvalid), "4096"},
		{"environment of 2 MiB", engine.CreateOptions{Env: []string{"A=" + strings.Repeat("x", 2<<20)}}, is(fs.ErrInvalid), "at most 1048576"},
		{"network", engine.CreateOptions{Network: 7}, is(fs.ErrInvalid), "7"},
		{"memory too small", engine.CreateOptions{Limits: engine.Limits{Memory: 1}}, is(fs.ErrInvalid), "at least"},
		{"processes too few", engine.CreateOptions{Limits: engine.Limits{Processes: 1}}, is(fs.ErrInvalid), "at least"},
		{"processes too many", engine.CreateOptions{Limits: engine.Limits{Processes: math.MaxInt}}, is(fs.ErrInvalid), "at most 4194304"},
		{"processors too many", engine.CreateOptions{Limits: engine.Limits{CPUs: 1e300}}, is(fs.ErrInvalid), "at most 65536"},
		{"processors without an end", engine.CreateOptions{Limits: engine.Limits{CPUs: math.Inf(1)}}, is(fs.ErrInvalid), "at most 65536"},
		{"processors below all numbers", engine.CreateOptions{Limits: engine.Limits{CPUs: math.Inf(-1)}}, is(fs.ErrInvalid), "negative for"},
		{"processors that are no number", engine.CreateOptions{Limits: engine.Limits{CPUs: math.NaN()}}, is(fs.ErrInvalid), "at least"},
		{"disk too small", engine.CreateOptions{Limits: engine.Limits{Disk: 1}}, is(fs.ErrInvalid), "at least 1048576"},
		{"disk too large", engine.CreateOptions{Limits: engine.Limits{Disk: 1 << 62}}, is(fs.ErrInvalid), "at most 1099511627776"},
		{"mount without a source", engine.CreateOptions{Mounts: []engine.Mount{{Source: "/nonexistent", Target: "/x"}}}, is(fs.ErrInvalid), "no such source"},
		{"two mounts at one target", engine.CreateOptions{Mounts: []engine.Mount{{Source: "/usr", Target: "/x"}, {Source: aFile, Target: "/x"}}}, is(fs.ErrInvalid), "two"},
		{"mount below a file", engine.CreateOptions{Mounts: []engine.Mount{{Source: aFile, Target: "/x"}, {Source: "/usr", Target: "/x/y/z"}}}, is(fs.ErrInvalid), "below"},
		{"mount at a name that is too long", engine.CreateOptions{Mounts: []engine.Mount{{Source: "/usr", Target: "/" + strings.Repeat("x", 256)}}}, is(fs.ErrInvalid), "at most 255"},
		{"mount at a path that is too long", engine.CreateOptions{Mounts: []engine.Mount{{Source: "/usr", Target: strings.Repeat("/xxx", 1024)}}}, is(fs.ErrInvalid), "4096"},
		{"mount over /proc", engine.CreateOptions{Mounts: []engine.Mount{{Source: "/usr", Target: "/proc/x"}}}, is(fs.ErrInvalid), "/proc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sb, err := eng.Create(t.Context(), tt.opts)
			if err == nil {
				t.Fatalf("created %s", sb.ID())
			}
			var eerr *engine.Error
			if !errors.As(err, &eerr) || eerr.Op != "create" {
				t.Errorf("got %T, want an *engine.Error of create", err)
			}
			if !tt.is(err) {
				t.Errorf("got %v, want another kind", err)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %q, want it to say %q", err, tt.text)
			}
			if len(err.Error()) > 400 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if left := append(sandboxesIn(dir), list(t, filepath.Join(dir, "trash"))...); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
	for l := range eng.List(t.Context(), lease.Query{States: []lease.State{lease.Running}}) {
		t.Errorf("left: a lease that runs, %+v", l)
	}
}

// TestBadIDs asks for sandboxes by what can't be an ID.
func TestBadIDs(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	ctx := t.Context()
	for _, id := range []string{"", ".", "..", "../x", "/", "a\x00b", strings.Repeat("x", 300),
		"0190a3f4-0000-7000-8000-00000000000", "0190A3F4-0000-7000-8000-000000000000", "{0190a3f4-0000-7000-8000-000000000000}",
		"0190a3f4-0000-4000-8000-000000000000", "0190a3f4-0000-7000-8000-000000000000"} {
		_, rerr := eng.Reconnect(ctx, id)
		_, lerr := eng.Lease(ctx, id)
		for op, err := range map[string]error{"reconnect": rerr, "lease": lerr, "kill": eng.Kill(ctx, id)} {
			if !errors.Is(err, engine.ErrNotFound) {
				t.Errorf("%s %.40q: got %v, want ErrNotFound", op, id, err)
			}
			if err != nil && len(err.Error()) > 200 {
				t.Errorf("%s %.40q: an error of %d bytes", op, id, len(err.Error()))
			}
		}
	}
}

// TestHandleBadInput gives a handle what it must refuse.
func TestHandleBadInput(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{Metadata: map[string]string{"a": "1"}})
	ctx := t.Context()
	if err := sb.KeepAlive(ctx, -time.Second); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("KeepAlive: got %v, want fs.ErrInvalid", err)
	}
	if err := sb.Extend(ctx, -time.Second); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Extend: got %v, want fs.ErrInvalid", err)
	}
	if err := sb.SetMetadata(ctx, map[string]string{"k": strings.Repeat("x", 1<<20)}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("SetMetadata: got %v, want fs.ErrInvalid", err)
	}
	l, err := sb.Lease(ctx)
	if err != nil || l.Metadata["a"] != "1" || !l.ExpiresAt.IsZero() {
		t.Errorf("lease: got %+v, %v, want it as it was", l, err)
	}
	if err := sb.SetMetadata(ctx, map[string]string{"b": "2"}); err != nil {
		t.Fatal(err)
	}
	if l, err = eng.Lease(ctx, sb.ID()); err != nil || len(l.Metadata) != 1 || l.Metadata["b"] != "2" {
		t.Errorf("metadata: got %v, %v, want b alone", l.Metadata, err)
	}
}

// TestBadStateDir opens engines where none may be.
func TestBadStateDir(t *testing.T) {
	t.Parallel()
	needRoot(t)
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "precious.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	open777 := t.TempDir()
	if err := os.Chmod(open777, 0o777); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	if err := os.Chown(foreign, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	aFile := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(aFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, dir, text string }{
		{"of another program", other, "precious.txt"},
		{"writable by all", open777, "chmod 0700"},
		{"of another user", foreign, "12345"},
		{"a file", aFile, "not a directory"},
		{"not writable", "/proc/nestbox", "nestbox"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := list(t, filepath.Dir(tt.dir))
			_, err := engine.Open(t.Context(), engine.Options{Dir: tt.dir})
			if !errors.Is(err, engine.ErrStateDir) {
				t.Fatalf("got %v, want ErrStateDir", err)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %q, want it to say %q", err, tt.text)
			}
			if tt.dir != "/proc/nestbox" && len(list(t, filepath.Dir(tt.dir))) != len(before) {
				t.Error("something was left beside it")
			}
		})
	}
	if names := list(t, other); len(names) != 1 {
		t.Errorf("another's directory has %v now", names)
	}
}

// TestCorruptStore damages the store while a sandbox lives. It is found again, and the bad file kept.
func TestCorruptStore(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	sb := create(t, eng, engine.CreateOptions{KeepAlive: time.Minute, Metadata: map[string]string{"user": "42"}})
	if err := eng.Close(); err != nil {
		t.Fatal(err)
	}
	garbage := bytes.Repeat([]byte("garbage!"), 1024)
	for _, name := range []string{"store.db", "store.db-wal"} {
		if err := os.WriteFile(filepath.Join(dir, name), garbage, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	eng = open(t, dir, func(o *engine.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	kept, err := filepath.Glob(filepath.Join(dir, "store.db.corrupt-*"))
	if err != nil || len(kept) == 0 {
		t.Errorf("the bad file is not kept: %v, %v", kept, err)
	}
	if !strings.Contains(log.String(), "damaged") {
		t.Errorf("log: got %q, want it to say that the store is damaged", log.String())
	}
	var found []lease.Lease
	for l, err := range eng.List(t.Context(), lease.Query{Metadata: map[string]string{"user": "42"}}) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, l)
	}
	if len(found) != 1 || found[0].ID != sb.ID() || found[0].State != lease.Running {
		t.Errorf("found by metadata: got %+v, want %s", found, sb.ID())
	}
	again, err := eng.Reconnect(t.Context(), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLostRecords empties the store under an engine that runs.
func TestLostRecords(t *testing.T) {
	t.Parallel()
	mem := &forgetful{}
	eng := open(t, "", func(o *engine.Options) { o.Store = mem })
	ctx := t.Context()
	began := time.Now().Truncate(time.Millisecond)
	sb := create(t, eng, engine.CreateOptions{Metadata: map[string]string{"a": "1"}})
	done := time.Now()
	for name, f := range map[string]func() error{
		"KeepAlive":   func() error { return sb.KeepAlive(ctx, time.Minute) },
		"SetMetadata": func() error { return sb.SetMetadata(ctx, map[string]string{"a": "1"}) },
		"Lease":       func() error { _, err := sb.Lease(ctx); return err },
		"Kill":        func() error { return sb.Kill(ctx) },
	} {
		if name == "Kill" {
			continue
		}
		mem.forget()
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		l, err := eng.Lease(ctx, sb.ID())
		if err != nil || l.Metadata["a"] != "1" || l.CreatedAt.Before(began) || l.CreatedAt.After(done) {
			t.Errorf("after %s: lease %+v, %v", name, l, err)
		}
	}
	mem.forget()
	if err := sb.Kill(ctx); err != nil {
		t.Errorf("Kill: %v", err)
	}
	if got := endReason(t, eng, sb.ID()); got != lease.Killed {
		t.Errorf("end reason: got %q, want %q", got, lease.Killed)
	}
}

// forgetful is a store that can lose all it has.
type forgetful struct{ store.Memory }

func (f *forgetful) forget() {
	records, _ := f.List(context.Background(), store.Filter{})
	for _, r := range records {
		_ = f.Update(context.Background(), r.ID, func(r *store.Record) error {
			r.EndedAt = time.Unix(1, 0)
			return nil
		})
	}
	_, _ = f.Prune(context.Background(), time.Unix(2, 0))
}

// TestCancelledCreate cancels the context in the middle of Create, and before.
func TestCancelledCreate(t *testing.T) {
	needRoot(t) // not parallel: the hook is the process's
	dir := stateDir(t)
	eng := open(t, dir)
	why := errors.New("changed my mind")
	for _, at := range append([]string{""}, createSteps[:len(createSteps)-1]...) {
		t.Run("after "+at, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if at == "" {
				cancel(why)
			}
			engine.SetStepHook(func(step string) {
				if step == at {
					cancel(why)
				}
			})
			defer engine.SetStepHook(func(string) {})
			sb, err := eng.Create(ctx, engine.CreateOptions{})
			if err == nil {
				t.Fatalf("created %s", sb.ID())
			}
			if !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want the context's error", err)
			}
			if left := append(sandboxesIn(dir), list(t, filepath.Join(dir, "trash"))...); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
	for l := range eng.List(t.Context(), lease.Query{States: []lease.State{lease.Running}}) {
		t.Errorf("left: a lease that runs, %+v", l)
	}
}

// TestOpenTogether opens one fresh directory from several engines at once, in two processes.
func TestOpenTogether(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := filepath.Join(stateDir(t), "fresh")
	t.Cleanup(func() { checkNothingLeft(t, dir) })
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			eng, err := engine.Open(t.Context(), engine.Options{Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			sb, err := eng.Create(t.Context(), engine.CreateOptions{})
			if err != nil {
				t.Error(err)
			} else if err := sb.Command("true").Run(); err != nil {
				t.Error(err)
			}
			if err := eng.Close(); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			cmd := exec.Command("/proc/self/exe", dir)
			cmd.Env = append(os.Environ(), helperVar+"=openclose")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("second process: %v: %s", err, out)
			}
		})
	}
	all.Wait()
}

// TestFullDisk creates sandboxes until the state directory's file system is full, which only a process with
// mounts of its own sees.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, limit := range []string{"0", "-1"} { // the sandbox's own file system finds it full, or the sandbox does
		t.Run("limit "+limit, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "small")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe", dir, limit)
			cmd.Env = append(os.Environ(), helperVar+"=fulldisk")
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // with private mounts, see os/exec
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("helper: %v", err)
			}
			if !strings.Contains(string(out), "full: ") {
				t.Errorf("helper printed %q, want it to tell of a full disk", out)
			}
			t.Logf("%s", out)
		})
	}
}

func init() {
	helpers["openclose"] = func(args []string) error { // <dir>
		eng, err := engine.Open(context.Background(), engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		return eng.Close()
	}
	helpers["fulldisk"] = fullDisk
}

// fullDisk <dir> <limit>: fills a small file system at dir, and sees what Create and Close make of that. The
// sandboxes have a limit of their own on what they write.
func fullDisk(args []string) error {
	ctx, dir := context.Background(), args[0]
	limit, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m,mode=0700"); err != nil {
		return err
	}
	eng, err := engine.Open(ctx, engine.Options{Dir: filepath.Join(dir, "state"), Limits: engine.Limits{Disk: limit}})
	if err != nil {
		return err
	}
	sb, err := eng.Create(ctx, engine.CreateOptions{})
	if err != nil {
		return err
	}
	out, err := sb.Command("sh", "-c", "head -c 64000000 /dev/zero > fill").CombinedOutput()
	if err == nil {
		unix.Sync() // has the kernel see that there is no room
		out, err = sb.Command("sync", "fill").CombinedOutput()
	}
	if err == nil {
		return errors.New("filling the disk went well")
	}
	fmt.Printf("fill: %s", out)
	again, err := eng.Reconnect(ctx, sb.ID())
	if err != nil {
		return err
	}
	if err := errors.Join(again.Command("true").Run(), again.Close()); err != nil {
		return err
	}
	before := sandboxesIn(filepath.Join(dir, "state"))
	for range 3 {
		other, err := eng.Create(ctx, engine.CreateOptions{})
		if err == nil {
			return fmt.Errorf("created %s on a full disk", other.ID())
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("create: got %w, want ENOSPC", err)
		}
		fmt.Println("full:", err)
	}
	if after := sandboxesIn(filepath.Join(dir, "state")); len(after) != len(before) {
		return fmt.Errorf("sandboxes: %v, before %v", after, before)
	}
	if err := sb.FS().Remove("fill"); err != nil {
		return err
	}
	if _, err = eng.Create(ctx, engine.CreateOptions{}); err != nil {
		return fmt.Errorf("create with room again: %w", err)
	}
	if err := eng.Close(); err != nil {
		return err
	}
	if left := sandboxesIn(filepath.Join(dir, "state")); len(left) > 0 {
		return fmt.Errorf("left: %v", left)
	}
	return nil
}

// TestTemplateFirst puts a template into a state directory that is none yet.
func TestTemplateFirst(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	if err := os.MkdirAll(filepath.Join(dir, "templates", "mine", "rootfs", "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	sb := create(t, open(t, dir), engine.CreateOptions{Template: "mine"})
	if _, err := sb.FS().Stat("/proc/1"); err != nil {
		t.Error(err)
	}
}
