package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"golang.org/x/sys/unix"
)

// TestDiskLimit fills a sandbox's disk, with bytes and with files, as root and as a user. Nothing else suffers.
func TestDiskLimit(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	other := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Disk: 1 << 20}})
	const limit = 24 << 20
	fillers := []struct{ name, script string }{
		{"bytes", "cat /dev/zero > f"},
		{"bytes of many files", "i=0; while head -c 300000 /dev/zero > f$i; do i=$((i+1)); done; exit 1"},
		{"files", "i=0; while : > f$i; do i=$((i+1)); done"},
		{"directories", "i=0; while mkdir d$i; do i=$((i+1)); done; exit 1"},
	}
	for _, user := range []string{"root", "user"} {
		for _, tt := range fillers {
			t.Run(tt.name+" as "+user, func(t *testing.T) {
				t.Parallel()
				sb := create(t, eng, engine.CreateOptions{User: user, Limits: engine.Limits{Disk: limit}})
				fillDisk(t, sb, tt.script, limit)
				checkOthers(t, eng, sb, other)
				if out, err := sb.Command("sh", "-c", "rm -r ./*; head -c 20000000 /dev/zero > again").CombinedOutput(); err != nil {
					t.Errorf("with room again: %v: %s", err, out)
				}
			})
		}
	}
}

// fillDisk runs a script that ends when the disk is full, and looks at what says so.
func fillDisk(t *testing.T, sb *engine.Sandbox, script string, limit int64) {
	t.Helper()
	var exit *engine.ExitError
	out, err := sb.Command("sh", "-c", script).CombinedOutput()
	if !errors.As(err, &exit) || !strings.Contains(string(out), "No space left on device") {
		t.Errorf("%s: %v, printed %.300q, want it to be told that no space is left", script, err, out)
	}
	if err := sb.FS().WriteFile("more", make([]byte, limit), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteFile: got %v, want ENOSPC", err)
	}
	st, err := sb.Stats(t.Context())
	if err != nil || st.Disk > limit+limit/50 || st.Files > 1700 || st.Disk < limit*9/10 && st.Files < 1400 {
		t.Errorf("stats: %d bytes in %d files, %v, want one of them at its limit", st.Disk, st.Files, err)
	}
}

// checkOthers checks that another sandbox and the engine don't notice that sb's disk is full.
func checkOthers(t *testing.T, eng *engine.Engine, sb, other *engine.Sandbox) {
	t.Helper()
	ctx := t.Context()
	name := "of " + sb.ID()
	if err := other.FS().WriteFile(name, make([]byte, 50_000), 0o600); err != nil {
		t.Errorf("another sandbox: %v", err)
	}
	if err := other.FS().Remove(name); err != nil {
		t.Errorf("another sandbox: %v", err)
	}
	if err := sb.SetMetadata(ctx, map[string]string{"full": "yes"}); err != nil {
		t.Error(err)
	}
	again, err := eng.Reconnect(ctx, sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Command("true").Run(), again.Pause(ctx), again.Resume(ctx), again.Close()); err != nil {
		t.Error(err)
	}
}

// TestDiskSparse has a directory full of files that are large only by their sizes.
func TestDiskSparse(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	sb := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Disk: 16 << 20}})
	out, err := sb.Command("sh", "-c", "mkdir d; i=0; while [ $i -lt 500 ]; do truncate -s 1T d/$i; i=$((i+1)); done; df -k . | tail -1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	st, err := sb.Stats(t.Context())
	if err != nil || st.Disk > 1<<20 || st.Files < 500 || st.Files > 510 {
		t.Errorf("stats: %d bytes in %d files, %v, want next to none in 500 and a few", st.Disk, st.Files, err)
	}
	if taken := onHost(t, dir, sb.ID()); taken > 2<<20 {
		t.Errorf("it takes %d bytes of the host", taken)
	}
}

// onHost is what a sandbox's disk takes of the state directory's file system.
func onHost(t *testing.T, dir, id string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "sandboxes", id, "disk.img"), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestDiskGivesBack deletes a large file. The host has its room back.
func TestDiskGivesBack(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	sb := create(t, eng, engine.CreateOptions{})
	for range 3 {
		if out, err := sb.Command("sh", "-c", "head -c 64000000 /dev/zero > f").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		unix.Sync() // what a guest writes stays in memory for a while, whatever it says
		if taken := onHost(t, dir, sb.ID()); taken < 64_000_000 {
			t.Errorf("with a large file it takes %d bytes of the host", taken)
		}
		if err := sb.Command("rm", "f").Run(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "the host has its room back", func() bool { return onHost(t, dir, sb.ID()) < 4<<20 })
	}
}

// TestDiskAndMemory writes far more than the sandbox may have of memory. It isn't killed for that.
func TestDiskAndMemory(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Memory: 32 << 20, Disk: 256 << 20}})
	script := `i=0; while [ $i -lt 20 ]; do head -c 10000000 /dev/zero | tr '\0' $(printf '\\%o' $((65+i))); i=$((i+1)); done | tee f | sha256sum && sha256sum < f`
	out, err := sb.Command("sh", "-c", script).CombinedOutput()
	sums := strings.Fields(string(out))
	if err != nil || len(sums) != 4 || sums[0] != sums[2] {
		t.Fatalf("%v: %s, want one sum twice", err, out)
	}
	st, err := sb.Stats(t.Context())
	if err != nil || st.OOMKills > 0 || st.Memory > 32<<20 || st.Disk < 200_000_000 {
		t.Errorf("stats: %+v, %v, want 200 MB of disk and nothing killed", st, err)
	}
}

// TestDiskStats looks at a sandbox's disk while it is paused, and from another process. A sandbox without a limit
// has the same.
func TestDiskStats(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	var got []engine.Stats
	for _, limit := range []int64{0, -1} {
		sb := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Disk: limit}})
		if out, err := sb.Command("sh", "-c", "mkdir d; head -c 5000000 /dev/zero > d/f; rm /etc/hostname; ln d/f g").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		unix.Sync() // so that both know how many blocks that takes
		st, err := sb.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, st)
		want := fmt.Sprint(st.Disk, " ", st.Files)
		if err := sb.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		if there := start(t, "diskstats", dir, sb.ID()).line(t); there != want {
			t.Errorf("paused, in another process: got %s, want %s", there, want)
		}
	}
	if d := got[0].Disk - got[1].Disk; d < -64<<10 || d > 64<<10 || got[0].Files != got[1].Files {
		t.Errorf("with a limit %d bytes in %d files, without %d in %d", got[0].Disk, got[0].Files, got[1].Disk, got[1].Files)
	}
}

// TestDiskOfEngine has limits from where they come.
func TestDiskOfEngine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ engine, sandbox, want int64 }{
		{0, 0, 2 << 30},
		{64 << 20, 0, 64 << 20},
		{64 << 20, 32 << 20, 32 << 20},
		{64 << 20, -1, 0},
		{-1, 0, 0},
		{-1, 32 << 20, 32 << 20},
	} {
		t.Run(fmt.Sprint(tt.engine, tt.sandbox), func(t *testing.T) {
			eng := open(t, "", func(o *engine.Options) { o.Limits.Disk = tt.engine })
			sb := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Disk: tt.sandbox}})
			out, err := sb.Command("df", "--output=avail", "-B1", "/").Output()
			_, avail, _ := strings.Cut(string(out), "\n")
			var room int64
			if _, serr := fmt.Sscan(avail, &room); err != nil || serr != nil {
				t.Fatalf("df: %q, %v", out, err)
			}
			if tt.want > 0 && (room > tt.want+64<<10 || room < tt.want-64<<10) || tt.want == 0 && room == 2<<30 {
				t.Errorf("df shows room for %d bytes, want about %d", room, tt.want)
			}
		})
	}
	if _, err := engine.Open(t.Context(), engine.Options{Dir: t.TempDir(), Limits: engine.Limits{Disk: 5}}); err == nil {
		t.Error("opened an engine with a limit of 5 bytes")
	}
}

// TestDiskIOPS has a sandbox that wants to do without its page cache wait for its transfers.
func TestDiskIOPS(t *testing.T) {
	t.Parallel()
	eng := open(t, "", func(o *engine.Options) { o.Limits.DiskIOPS = 100 })
	sb := create(t, eng, engine.CreateOptions{Seccomp: engine.SeccompUnconfined}) // the default denies direct transfers
	for _, args := range [][]string{
		{"if=/dev/zero", "of=/tmp/file", "oflag=direct", "bs=4k", "count=60"},
		{"if=/tmp/file", "of=/dev/null", "iflag=direct", "bs=4k"},
	} {
		const least = 300 * time.Millisecond // the kernel lets some go in advance
		began := time.Now()
		out, err := sb.Command("dd", args...).CombinedOutput()
		if took := time.Since(began); err != nil || took < least {
			t.Errorf("60 transfers took %v, want %v at least: %v, %s", took, least, err, out)
		}
	}
	try := func(l engine.Limits, want int) {
		t.Helper()
		if err := sb.SetLimits(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if p, err := sb.Posture(t.Context()); err != nil || p.Limits.DiskIOPS != want {
			t.Errorf("with %+v the kernel says %d, %v, want %d", l, p.Limits.DiskIOPS, err, want)
		}
	}
	try(engine.Limits{DiskIOPS: 5000}, 5000)
	try(engine.Limits{CPUs: 1}, 5000)
	try(engine.Limits{DiskIOPS: -1}, -1)

	bare := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Disk: -1}})
	if l, err := bare.Limits(); err != nil || l.DiskIOPS != -1 {
		t.Errorf("without a disk the limit is %d, %v, want none", l.DiskIOPS, err)
	}
	var invalid *engine.InvalidError
	if err := bare.SetLimits(t.Context(), engine.Limits{DiskIOPS: 500}); !errors.As(err, &invalid) || invalid.Field != "Limits.DiskIOPS" {
		t.Errorf("it takes a limit without a disk: %v", err)
	}
	if err := bare.SetLimits(t.Context(), engine.Limits{DiskIOPS: -1}); err != nil {
		t.Errorf("it doesn't do without: %v", err)
	}
	_, err := eng.Create(t.Context(), engine.CreateOptions{Limits: engine.Limits{Disk: -1, DiskIOPS: 500}})
	if !errors.As(err, &invalid) || invalid.Field != "Limits.DiskIOPS" {
		t.Errorf("created one with a limit and without a disk: %v", err)
	}
}

// TestDiskMany has 50 sandboxes write at once.
func TestDiskMany(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	var all sync.WaitGroup
	var ids [50]string
	for i := range ids {
		all.Go(func() {
			sb, err := eng.Create(t.Context(), engine.CreateOptions{Limits: engine.Limits{Disk: 4 << 20}})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = sb.ID()
			if out, err := sb.Command("sh", "-c", "cat /dev/zero > f").CombinedOutput(); err == nil || !strings.Contains(string(out), "No space left") {
				t.Errorf("%v, printed %q", err, out)
			}
			if loops(t, sb.ID()) != 1 {
				t.Errorf("%d loop devices, want one", loops(t, sb.ID()))
			}
			if err := sb.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		checkLoops(t, id)
	}
}

// loops is how many loop devices there are on a sandbox's disk.
func loops(t *testing.T, id string) (n int) {
	t.Helper()
	found, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range found {
		dev, err := os.Open(filepath.Join("/dev", filepath.Base(filepath.Dir(dir))))
		if err != nil {
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		_ = dev.Close()
		if err == nil && unix.ByteSliceToString(info.File_name[:]) == id {
			n++
		}
	}
	return n
}

// checkLoops checks that the kernel gives a sandbox's loop device back, which it does a moment after the end.
func checkLoops(t *testing.T, id string) {
	t.Helper()
	eventually(t, 10*time.Second, "the loop device of "+id+" is free", func() bool { return loops(t, id) == 0 })
}

// TestDiskCalls has the sandbox's root ask its file system, which is its own, for what only the host may. The overlay
// lets none of that through.
func TestDiskCalls(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	if _, err := exec.LookPath("python3"); err != nil {
		const why = "no python3 to make system calls with: install it"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	for _, tt := range []struct{ name, request, argument string }{
		{"EXT4_IOC_SHUTDOWN", "0x8004587D", `struct.pack("I", 2)`},
		{"EXT4_IOC_RESIZE_FS", "0x40086610", `struct.pack("Q", 1 << 30)`},
		{"EXT4_IOC_SWAP_BOOT", "0x6611", "0"},
		{"FITRIM", "0xC0185879", `struct.pack("QQQ", 0, 1 << 40, 0)`},
		{"FIFREEZE", "0xC0045877", "bytes(4)"},
		{"FS_IOC_SETFLAGS immutable", "0x40086602", `struct.pack("Q", 0x10)`},
		{"FS_IOC_FSSETXATTR project", "0x401C5820", `struct.pack("IIIII8x", 0, 0, 0, 77, 0)`},
	} {
		script := fmt.Sprintf("import fcntl, os, struct, sys\nfcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), %s, %s)", tt.request, tt.argument)
		for _, name := range []string{"/", "/root", "/etc/passwd"} {
			out, err := sb.Command("python3", "-c", script, name).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "Error: [Errno ") {
				t.Errorf("%s on %s: %v, printed %s, want it to be refused", tt.name, name, err, out)
			}
		}
	}
}

// TestNoDisk creates sandboxes where there is no loop device, or no controller for transfers, which only a process with
// mounts of its own sees.
func TestNoDisk(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, helper := range []string{"nodisk", "noio"} {
		t.Run(helper, func(t *testing.T) {
			if _, err := os.Stat(blkio); err != nil && helper == "noio" {
				t.Skip("where cgroups are all of version 2 there is nothing to unmount: run it with version 1")
			}
			cmd := exec.Command("/proc/self/exe", stateDir(t))
			cmd.Env = append(os.Environ(), helperVar+"="+helper)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("helper: %v: %s", err, out)
			}
		})
	}
}

// blkio is the hierarchy of version 1 that limits transfers.
const blkio = "/sys/fs/cgroup/blkio"

func init() {
	helpers["diskstats"] = func(args []string) error { // <dir> <id>
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		sb, err := eng.Reconnect(ctx, args[1])
		if err != nil {
			return err
		}
		st, err := sb.Stats(ctx)
		fmt.Println(st.Disk, st.Files)
		return errors.Join(err, eng.Close())
	}
	// With <dir>: they hide the loop devices, or the controller, and see what Create makes of that.
	helpers["nodisk"] = func(args []string) error {
		err := syscall.Mount("/dev/null", "/dev/loop-control", "", syscall.MS_BIND, "")
		return errors.Join(err, createWithout(args[0], engine.Limits{Disk: -1}, "modprobe loop", "Limits.Disk: -1"))
	}
	helpers["noio"] = func(args []string) error {
		err := syscall.Unmount(blkio, syscall.MNT_DETACH)
		for _, f := range engine.Probe(context.Background()).Features {
			if f.Name == "cgroup io" && f.Support != engine.Unsupported {
				err = fmt.Errorf("probe: %+v", f)
			}
		}
		return errors.Join(err, createWithout(args[0], engine.Limits{DiskIOPS: -1}, "blkio", "Limits.DiskIOPS: -1"))
	}
}

// createWithout creates sandboxes where something is missing. The error has texts that say what to do, and with limits it
// goes.
func createWithout(dir string, limits engine.Limits, texts ...string) error {
	ctx := context.Background()
	eng, err := engine.Open(ctx, engine.Options{Dir: dir})
	if err != nil {
		return err
	}
	for range 3 {
		_, err = eng.Create(ctx, engine.CreateOptions{})
		for _, text := range texts {
			if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), text) {
				return fmt.Errorf("create: %w, want it to be errors.ErrUnsupported and to say %s", err, text)
			}
		}
	}
	if left := sandboxesIn(dir); len(left) > 0 {
		return fmt.Errorf("left: %v", left)
	}
	sb, err := eng.Create(ctx, engine.CreateOptions{Limits: limits})
	if err != nil {
		return err
	}
	return errors.Join(sb.Command("true").Run(), sb.Close(), eng.Close())
}
