package engine_test

import (
	"archive/tar"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"golang.org/x/sys/unix"
)

// abuseFiles is how many files TestAbuseFiles makes. The million takes minutes, most of which a file system that is
// mounted with "discard" waits for its device at each file that is removed:
//
//	go test ./engine -run AbuseFiles -v -timeout 30m -abuse.files 1000000
var abuseFiles = flag.Int("abuse.files", 20_000, "how many small files a sandbox of TestAbuseFiles makes")

// TestAbuseOutput has commands print without end what nobody reads, or reads slowly. The host keeps no more of it than
// it was asked to.
func TestAbuseOutput(t *testing.T) {
	h := newAbused(t)
	before := h.begin(t)
	sb := h.create(t, engine.CreateOptions{})
	unread := sb.Command("yes")
	if _, err := unread.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	slow := sb.Command("yes")
	few, err := slow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var excerpt engine.Excerpt
	kept := sb.Command("sh", "-c", "yes & yes >&2")
	kept.Stdout, kept.Stderr = &excerpt, &excerpt
	spooled := sb.Command("yes")
	spooled.Spool = 1 << 20
	commands := []*engine.Cmd{unread, slow, kept, spooled}
	for _, c := range commands {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	shown := sb.Command("yes")
	tty, err := shown.StartPTY(engine.WindowSize{})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := few.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := sb.Command("true").Run(); err != nil {
			t.Error(err)
		}
	}
	h.checkHost(t)
	h.kill(t, sb)
	for _, c := range append(commands, shown) {
		if err := c.Wait(); err == nil {
			t.Errorf("%v ended well, want it killed", c)
		}
	}
	if err := tty.Close(); err != nil {
		t.Error(err)
	}
	if n := len(excerpt.Bytes()); n == 0 || n > 1<<20 {
		t.Errorf("the excerpt has %d bytes", n)
	}
	h.checkEnd(t, sb, before)
}

// TestAbuseStubborn has commands that nothing but SIGKILL ends. Each way to end them does.
func TestAbuseStubborn(t *testing.T) {
	h := newAbused(t)
	const deaf = "trap '' HUP INT QUIT TERM USR1 USR2 PIPE ALRM TSTP TTIN TTOU; echo ready; while :; do sleep 1000; done"
	scripts := []struct{ name, script string }{
		{"deaf", deaf},
		{"stopped", "echo ready; kill -STOP $$"},
		{"in a session of its own", "setsid sh -c \"" + deaf + "\" & wait"},
		{"many", "for i in 1 2 3 4 5 6 7 8 9; do (" + deaf + ") & done; " + deaf},
	}
	ends := []struct {
		name string
		end  func(t *testing.T, sb *engine.Sandbox, cancel func())
	}{
		{"cancel", func(_ *testing.T, _ *engine.Sandbox, cancel func()) { cancel() }},
		{"kill", func(t *testing.T, sb *engine.Sandbox, _ func()) { h.kill(t, sb) }},
		{"close", func(t *testing.T, sb *engine.Sandbox, _ func()) { h.close(t, sb) }},
	}
	for _, s := range scripts {
		for _, e := range ends {
			t.Run(s.name+" "+e.name, func(t *testing.T) {
				before := h.begin(t)
				sb := h.create(t, engine.CreateOptions{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c := sb.CommandContext(ctx, "sh", "-c", s.script)
				c.WaitDelay = time.Second
				out, err := c.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				if _, err := out.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				e.end(t, sb, cancel)
				if err := c.Wait(); err == nil {
					t.Error("the command ended well")
				}
				if took := time.Since(began); took > endTimeout {
					t.Errorf("it took %v", took)
				}
				if sb.Err() == nil {
					h.close(t, sb)
				}
				h.checkEnd(t, sb, before)
			})
		}
	}
}

// TestAbuseReads has the host read, archive and remove what a guest exchanges for other things all the time. It sees
// files of the guest's and nothing else.
func TestAbuseReads(t *testing.T) {
	h := newAbused(t)
	before := h.begin(t)
	sb := h.create(t, engine.CreateOptions{})
	const secret = "/etc/nestbox-abuse" // where the guest's links lead to, if the host follows them
	if err := os.WriteFile(secret, []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(secret)
	startAbuse(t, sb, "renames")
	reads := map[string]int{}
	for n := range 2000 {
		name := "all/" + []string{"file", "dir", "link", "up", "near"}[n%5]
		for _, below := range []string{"", "/file", "/" + filepath.Base(secret), "/hostname"} {
			data, err := sb.FS().ReadFile(name + below)
			switch got := string(data); {
			case err == nil && got != "guest" && got != "sandbox\n":
				t.Fatalf("%s: read %q, which is none of the guest's files", name+below, got)
			case err == nil:
				reads[got]++
			}
		}
		if entries, err := sb.FS().ReadDir(name); err == nil {
			reads["directories"]++
			if len(entries) > 1000 {
				t.Errorf("%s: %d entries", name, len(entries))
			}
		}
		if n%50 == 0 {
			checkArchive(t, sb)
			reads["archives"]++
		}
	}
	for _, want := range []string{"guest", "sandbox\n", "directories", "archives"} {
		if reads[want] == 0 {
			t.Errorf("of %v the host saw no %q", reads, want)
		}
	}
	if err := sb.FS().RemoveAll("all"); err != nil {
		t.Logf("remove: %v", err) // os.RemoveAll too gives up at what is no directory any more
	}
	for _, name := range []string{"/etc/passwd", "/etc/hostname"} {
		if _, err := sb.FS().Stat(name); err != nil {
			t.Errorf("behind the links: %v", err)
		}
	}
	h.checkHost(t)
	h.kill(t, sb)
	h.checkEnd(t, sb, before)
}

// checkArchive archives what the guest exchanges, and looks at each file.
func checkArchive(t *testing.T, sb *engine.Sandbox) {
	t.Helper()
	r, w := io.Pipe()
	go func() { w.CloseWithError(sb.FS().WriteTar("all", w)) }()
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if err != nil {
			if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("archive: %v", err)
			}
			return
		}
		data, _ := io.ReadAll(io.LimitReader(tr, 100))
		if hdr.Typeflag == tar.TypeReg && string(data) != "guest" || !filepath.IsLocal(hdr.Name) {
			t.Errorf("archive: %s has %q", hdr.Name, data)
		}
	}
}

// TestAbuseLeftovers ends sandboxes that leave what is hard to remove, on a disk and directly in the state directory.
func TestAbuseLeftovers(t *testing.T) {
	h := newAbused(t)
	depth := "10000"
	if testing.Short() {
		depth = "1000"
	}
	for _, disk := range []int64{0, -1} {
		t.Run(fmt.Sprint("disk ", disk), func(t *testing.T) {
			before := h.begin(t)
			sb := h.create(t, engine.CreateOptions{Limits: engine.Limits{Disk: disk}})
			c, line := guest(t, sb, "leave", depth)
			if line != "left" {
				t.Fatalf("the guest says %q", line)
			}
			began := time.Now()
			h.kill(t, sb)
			_ = c.Wait()
			h.checkEnd(t, sb, before)
			t.Logf("all was gone after %v", time.Since(began))
		})
	}
}

// TestAbuseFiles ends sandboxes with many small files, on a disk and directly in the state directory.
func TestAbuseFiles(t *testing.T) {
	h := newAbused(t)
	n := *abuseFiles
	if testing.Short() {
		n /= 10
	}
	for _, disk := range []int64{int64(n+2000) << 14, -1} {
		t.Run(fmt.Sprint("disk ", disk), func(t *testing.T) {
			before := h.begin(t)
			sb := h.create(t, engine.CreateOptions{Limits: engine.Limits{Disk: disk, CPUs: -1}})
			began := time.Now()
			if _, line := guest(t, sb, "files", strconv.Itoa(n)); line != "left" {
				t.Fatalf("the guest says %q", line)
			}
			made := time.Since(began)
			began = time.Now()
			h.kill(t, sb)
			killed := time.Since(began)
			h.awaitEnd(t, sb, before, 10*time.Minute)
			t.Logf("%d files were made in %v, the sandbox ended in %v, all was gone after %v", n, made, killed, time.Since(began))
		})
	}
}

func init() {
	helpers["leave"] = func(args []string) error { // <depth>: leaves what is hard to remove, and has some of it open
		depth, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		if err := errors.Join(deepTree("deep", depth), oddNames()); err != nil {
			return err
		}
		fmt.Println("left")
		untilClosed()
		return nil
	}
	helpers["files"] = func(args []string) error { // <n>: makes files of a few bytes, a thousand in a directory
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		for i := range n {
			dir := "d" + strconv.Itoa(i/1000)
			if i%1000 == 0 {
				if err := os.Mkdir(dir, 0o755); err != nil {
					return err
				}
			}
			if err := os.WriteFile(dir+"/f"+strconv.Itoa(i), []byte("small"), 0o644); err != nil {
				return err
			}
		}
		fmt.Println("left")
		untilClosed()
		return nil
	}
}

// deepTree makes a directory with depth more below it, which no path leads to the end of.
func deepTree(name string, depth int) error {
	at := unix.AT_FDCWD
	for range depth {
		if err := unix.Mkdirat(at, name, 0o700); err != nil {
			return err
		}
		next, err := unix.Openat(at, name, unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		if at != unix.AT_FDCWD {
			_ = unix.Close(at)
		}
		at, name = next, strings.Repeat("n", 100)
	}
	return nil
}

// oddNames makes files and directories with odd names and modes, has them open and mapped, and tries to make them
// immutable, which isn't for a guest to do.
func oddNames() error {
	for n, name := range []string{"\xff\xfe", "new\nline", " ", "-rf", "*", strings.Repeat("é", 127), "\x01\x1b[31m"} {
		if err := os.MkdirAll("odd/"+name+"/below", 0o755); err != nil {
			return err
		}
		f, err := os.Create("odd/" + name + "/below/f")
		if err != nil {
			return err
		}
		if err := f.Truncate(1 << 20); err != nil {
			return err
		}
		if _, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return err
		}
		const immutable, appendOnly = 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
		for _, flags := range []int{immutable, appendOnly} {
			if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags); err == nil {
				return fmt.Errorf("file flags %#x were set", flags)
			}
		}
		mode := []fs.FileMode{0, 0o500, 0o555, 0o111}[n%4]
		if err := errors.Join(f.Chmod(0), os.Chmod("odd/"+name+"/below", mode), os.Chmod("odd/"+name, mode)); err != nil {
			return err
		}
	}
	return errors.Join(syscall.Mkfifo("odd/pipe", 0), os.Symlink("/", "odd/root"), os.Symlink("loop", "odd/loop"), os.Chmod("odd", 0))
}
