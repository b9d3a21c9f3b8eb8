package engine_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/fsapi"
)

func init() {
	helpers["ask"] = ask
	helpers["readpieces"] = readPieces
	helpers["writeslowly"] = writeSlowly
}

// asked is how many transfers ask wants at once.
const asked = 6000

// ask has for each of many pieces of a file a transfer wait. Before, it says that it is ready, and waits for a byte.
func ask([]string) error {
	f, err := os.OpenFile("/tmp/pieces", os.O_CREATE|os.O_RDWR|unix.O_DIRECT, 0o600)
	if err != nil {
		return err
	}
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	for n := range int64(asked) { // with a hole between any two
		if _, err := f.WriteAt(page, n*8192); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	if _, err := os.Stdin.Read(page[:1]); err != nil {
		return err
	}
	const step = 512 << 10 // the kernel bounds what it reads ahead for one call
	for at := int64(0); at < asked*8192; at += step {
		if err := unix.Fadvise(int(f.Fd()), at, step, unix.FADV_WILLNEED); err != nil {
			return err
		}
	}
	fmt.Println("asked")
	_, err = f.ReadAt(page, (asked-1)*8192)
	return err
}

// TestDiskIOPSEnd ends and pauses sandboxes whose transfers would take a minute.
func TestDiskIOPSEnd(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	for name, end := range map[string]func(*engine.Sandbox) error{
		"close": (*engine.Sandbox).Close,
		"kill":  func(sb *engine.Sandbox) error { return sb.Kill(t.Context()) },
		"pause": func(sb *engine.Sandbox) error {
			err := errors.Join(sb.Pause(t.Context()), sb.Resume(t.Context()))
			if p, perr := sb.Posture(t.Context()); perr != nil || p.Limits.DiskIOPS != 100 {
				t.Errorf("after a pause the kernel says %d, %v, want 100", p.Limits.DiskIOPS, perr)
			}
			return errors.Join(err, sb.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			sb, c, in, out := inPieces(t, eng)
			if _, err := in.Write([]byte{0}); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 64)); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if err := end(sb); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > endTimeout {
				t.Errorf("it took %v to end", took)
			}
			_ = c.Wait()
		})
	}
}

// inPieces gives a sandbox with a file /tmp/pieces in many pieces, whose transfers are limited then, and the guest that made it.
func inPieces(t *testing.T, eng *engine.Engine) (sb *engine.Sandbox, guest *engine.Cmd, in io.Writer, out io.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sb = create(t, eng, engine.CreateOptions{
		Limits:  engine.Limits{DiskIOPS: -1},
		Seccomp: engine.SeccompUnconfined, // the default denies direct transfers
		Mounts:  []engine.Mount{{Source: self, Target: "/tmp/self"}},
	})
	c := sb.Command("/tmp/self")
	c.Env = []string{helperVar + "=ask"}
	in, ierr := c.StdinPipe()
	out, oerr := c.StdoutPipe()
	if err := errors.Join(ierr, oerr, c.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	if err := sb.SetLimits(t.Context(), engine.Limits{DiskIOPS: 100}); err != nil {
		t.Fatal(err)
	}
	return sb, c, in, out
}

// readPieces has the kernel keep the lock of /tmp/pieces for as long as it reads all of that at once.
func readPieces([]string) error {
	f, err := os.OpenFile("/tmp/pieces", os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	all, err := unix.Mmap(-1, 0, asked*8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	fmt.Println("reading")
	_, err = f.ReadAt(all, 0)
	return err
}

// TestLockedFile has a call wait for a lock that the guest keeps. What else its handle asks for goes on, and a pause begins.
func TestLockedFile(t *testing.T) {
	t.Parallel()
	sb, c, _, _ := inPieces(t, open(t, ""))
	locker := sb.Command("/tmp/self")
	locker.Env = []string{helperVar + "=readpieces"}
	out, oerr := locker.StdoutPipe()
	if err := errors.Join(oerr, locker.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	held := false
	for range 3 { // that it reads can't be told from outside
		go func() { waiting <- sb.FS().Chmod("/tmp/pieces", 0o640) }()
		select {
		case err := <-waiting:
			if err != nil {
				t.Fatal(err)
			}
			continue
		case <-time.After(300 * time.Millisecond):
			held = true
		}
		break
	}
	if !held {
		t.Fatal("the guest doesn't keep the lock")
	}
	if _, err := sb.FS().ReadFile("/etc/passwd"); err != nil {
		t.Error(err)
	}
	if err := sb.Command("true").Run(); err != nil {
		t.Error(err)
	}
	if err := sb.KeepAlive(t.Context(), time.Second); err != nil {
		t.Error(err)
	}
	select {
	case err := <-waiting:
		t.Fatalf("others had to wait until that was done: %v", err)
	default:
	}
	if err := errors.Join(sb.Pause(t.Context()), sb.Resume(t.Context())); err != nil {
		t.Errorf("pause: %v", err)
	}
	if err := sb.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	<-waiting
	_, _ = c.Wait(), locker.Wait()
}

// writeSlowly has the kernel copy from a file to another for as long as it takes to read all of that, which isn't in memory, a page
// at a time, and do that again.
func writeSlowly([]string) error {
	const size, pieces, piece = 128 << 20, 64, 64 << 10
	from, ferr := os.Create("/tmp/from")
	to, terr := os.Create("/tmp/to")
	if err := errors.Join(ferr, terr); err != nil {
		return err
	}
	content := make([]byte, 1<<20)
	for range size / len(content) {
		if _, err := from.Write(content); err != nil {
			return err
		}
	}
	all, err := unix.Mmap(int(from.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	err = errors.Join(err, from.Sync(), unix.Madvise(all, unix.MADV_RANDOM), unix.Fadvise(int(from.Fd()), 0, 0, unix.FADV_DONTNEED))
	if err != nil {
		return err
	}
	fmt.Println("writing")
	failed := make(chan error)
	for range 4 {
		go func() {
			for {
				list := make([][]byte, pieces)
				for i := range list {
					list[i] = all[rand.IntN(size-piece)&^4095:][:piece]
				}
				if _, err := unix.Pwritev(int(to.Fd()), list, 0); err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

// TestPauseSlow pauses a sandbox whose processes are in calls that last.
func TestPauseSlow(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Limits: engine.Limits{Memory: 64 << 20}})
	putSelf(t, sb)
	_, _ = guest(t, sb, "writeslowly")
	for range 3 {
		if err := sb.Pause(t.Context()); err != nil {
			t.Errorf("pause: %v", err)
		}
		if err := sb.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := sb.Command("true").Run(); err != nil {
			t.Error(err)
		}
	}
}

// TestHeavyFile has what was made to take long not hold up anything else.
func TestHeavyFile(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	for name, free := range map[string]func(fsys *fsapi.FS) error{
		"overwrite": func(fsys *fsapi.FS) error { return fsys.WriteFile("/tmp/pieces", nil, 0o600) },
		"remove":    func(fsys *fsapi.FS) error { return fsys.Remove("/tmp/pieces") },
		"truncate":  func(fsys *fsapi.FS) error { return fsys.Truncate("/tmp/pieces", 0) },
		"rename":    func(fsys *fsapi.FS) error { return fsys.Rename("/tmp/other", "/tmp/pieces") },
		"extract":   func(fsys *fsapi.FS) error { return fsys.ExtractTar("/tmp", archiveOf(t, tar.Header{Name: "pieces"})) },
	} {
		t.Run(name, func(t *testing.T) {
			sb, c, _, _ := inPieces(t, eng)
			if err := sb.FS().WriteFile("/tmp/other", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			_ = c.Kill() // whose open file would keep what is removed
			_ = c.Wait()
			freed := make(chan error, 1)
			go func() { freed <- free(sb.FS()) }()
			for range 300 {
				if _, err := sb.FS().ReadFile("/etc/passwd"); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case err := <-freed:
				t.Fatalf("others had to wait until that was done: %v", err)
			default:
			}
			if err := sb.Kill(t.Context()); err != nil {
				t.Error(err)
			}
			<-freed
		})
	}
}
