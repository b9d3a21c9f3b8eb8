package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"golang.org/x/sys/unix"
)

// patience is how long an attempt, or the host's act, may take.
const patience = 20 * time.Second

// plantedFiles is how the host works on a guest's files: boxFiles as Nestbox does, or naiveFiles as it must not.
type plantedFiles interface {
	ReadFile(name string) ([]byte, error)
	WriteFile(name string, data []byte, perm fs.FileMode) error
	ReadDir(name string) ([]fs.DirEntry, error)
	Chown(name string, uid, gid int) error
	Chmod(name string, mode fs.FileMode) error
	MkdirAll(name string, perm fs.FileMode) error
	RemoveAll(name string) error
	WriteTar(dir string, w io.Writer) error
	ExtractTar(dir string, r io.Reader) error
	run(dir, program string, arg ...string) ([]byte, error) // dir is the program's working directory
	end(dir string) error                                   // removes all that there is, dir among it
	template(t *testing.T, dir string) error                // makes a sandbox of a template
	naive() bool
}

// hostActions are what a host does with a path that an attempt has planted. An error is for the log: it is the canary
// that tells whether the act was turned against the host.
var hostActions = map[string]func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error){
	"read": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) { return f.ReadFile(path) },
	"list": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
		entries, err := f.ReadDir(path)
		return fmt.Append(nil, entries), err
	},
	"write": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
		return nil, f.WriteFile(path, []byte("written by the host"), 0o600)
	},
	"chown": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
		return nil, f.Chown(path, 1000, 1000)
	},
	"chmod": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
		return nil, f.Chmod(path, 0o777)
	},
	"mkdir": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
		return nil, f.MkdirAll(path, 0o755)
	},
	"tar": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
		var b bytes.Buffer
		err := f.WriteTar(path, &b)
		return b.Bytes(), err
	},
	"untar": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
		return nil, f.ExtractTar(path, bytes.NewReader(anArchive(t)))
	},
	"unpack": unpack,
	"run": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
		return f.run(path, "cat", "secret")
	},
	"exec": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) { return f.run("/", path) },
	"remove": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
		return nil, f.RemoveAll(path)
	},
	"end":  func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) { return nil, f.end(path) },
	"race": race,
	"lock": lock,
	"move": move,
	"template": func(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
		return nil, f.template(t, path)
	},
}

// act does what an attempt wants of the host, and gives up on what doesn't return.
func act(t *testing.T, f plantedFiles, c *canary, action, path string) string {
	t.Helper()
	type result struct {
		said []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		said, err := hostActions[action](t, f, c, path)
		done <- result{said, err}
	}()
	within := patience
	if f.naive() {
		within = time.Second // which it takes only where it hangs, and is to
	}
	select {
	case r := <-done:
		t.Logf("the host's %s of %s: %d bytes, %v", action, path, len(r.said), r.err)
		return string(r.said)
	case <-time.After(within):
		c.hung = true
	}
	if pipe, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0); f.naive() && err == nil {
		_ = pipe.Close() // who waits for a writer has seen one come and go
		<-done
	}
	return ""
}

// anArchive is an archive that only a directory with links in it turns against the host.
func anArchive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"link/planted", "secret"} {
		data := "extracted by the host"
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpack extracts an archive that the attempt has made, into the directory that it lies in.
func unpack(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
	data, err := f.ReadFile(path)
	if err != nil {
		t.Errorf("the attempt's archive: %v", err)
		return nil, err
	}
	return nil, f.ExtractTar(filepath.Dir(path), bytes.NewReader(data))
}

// race reads and writes a file again and again while the attempt swaps the directory it is in.
func race(t *testing.T, f plantedFiles, c *canary, path string) (said []byte, err error) {
	for n := 0; n < 300 || f.naive() && n < 50_000 && !bytes.Contains(said, []byte(c.secret)); n++ {
		var data []byte
		data, err = f.ReadFile(path)
		if len(data) > 0 {
			said = data
		}
		if bytes.Contains(said, []byte(c.secret)) {
			return said, nil
		}
		if !f.naive() {
			err = errors.Join(err, f.WriteFile(path, nil, 0o600))
		}
	}
	return said, err
}

// lock locks a file of the host's that the attempt has locked inside.
func lock(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	c.locked = c.locked || errors.Is(err, syscall.EWOULDBLOCK)
	return nil, err
}

// move moves the directory that the attempt is in out of what is mounted in the sandbox.
func move(t *testing.T, f plantedFiles, c *canary, path string) ([]byte, error) {
	err := os.Rename(filepath.Join(c.shared(), "sub"), filepath.Join(c.dir, "elsewhere", "sub"))
	c.before = c.snapshot(t)
	return nil, err
}

// boxFiles are the files of a sandbox, through Nestbox.
type boxFiles struct{ box }

func (b boxFiles) naive() bool                          { return false }
func (b boxFiles) ReadFile(name string) ([]byte, error) { return b.sb.FS().ReadFile(name) }
func (b boxFiles) WriteFile(name string, data []byte, perm fs.FileMode) error {
	return b.sb.FS().WriteFile(name, data, perm)
}
func (b boxFiles) ReadDir(name string) ([]fs.DirEntry, error) { return b.sb.FS().ReadDir(name) }
func (b boxFiles) Chown(name string, uid, gid int) error      { return b.sb.FS().Chown(name, uid, gid) }
func (b boxFiles) Chmod(name string, mode fs.FileMode) error  { return b.sb.FS().Chmod(name, mode) }
func (b boxFiles) MkdirAll(name string, perm fs.FileMode) error {
	return b.sb.FS().MkdirAll(name, perm)
}
func (b boxFiles) RemoveAll(name string) error              { return b.sb.FS().RemoveAll(name) }
func (b boxFiles) WriteTar(dir string, w io.Writer) error   { return b.sb.FS().WriteTar(dir, w) }
func (b boxFiles) ExtractTar(dir string, r io.Reader) error { return b.sb.FS().ExtractTar(dir, r) }

func (b boxFiles) run(dir, program string, arg ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := b.sb.CommandContext(ctx, program, arg...)
	cmd.Dir, cmd.WaitDelay = dir, time.Second
	return cmd.CombinedOutput()
}

func (b boxFiles) end(string) error { return b.sb.Kill(cleanupContext()) }

func (b boxFiles) template(t *testing.T, dir string) error {
	return errors.New("bug: an attempt at a template is made outside of a sandbox")
}

// workshop is where templates are planted, for Nestbox to make a sandbox of.
type workshop struct {
	bare
	eng *engine.Engine
}

func (w workshop) files() plantedFiles { return templateFiles{eng: w.eng} }

type templateFiles struct {
	plantedFiles
	eng *engine.Engine
}

func (f templateFiles) naive() bool { return false }

// template makes a sandbox, if it may, and writes to what stands for devices and what it has of its own there.
func (f templateFiles) template(t *testing.T, dir string) error {
	sb, err := f.eng.Create(t.Context(), engine.CreateOptions{Template: dir, Dir: "/root/own"})
	if err != nil {
		return err // it is refused
	}
	for _, name := range []string{"/dev/null", "/dev/console", "/dev/ptmx", "/dev/shm/x", "/proc/self/attr/x", "/etc/x", "/root/own/x", "/etc/passwd"} {
		_ = sb.FS().WriteFile(name, []byte("written by the host"), 0o600)
	}
	if fi, err := sb.FS().Lstat("/dev/null"); err != nil || fi.Mode()&fs.ModeCharDevice == 0 {
		t.Errorf("/dev/null of the template: %v, %v, want a device", fi, err)
	}
	return sb.Kill(cleanupContext())
}

// naiveFiles are files at their paths on the host, as tools that were broken have taken them.
type naiveFiles struct{}

func (naiveFiles) naive() bool { return true }
func (naiveFiles) ReadFile(name string) ([]byte, error) {
	if fi, err := os.Lstat(filepath.Dir(name)); err != nil || fi.Mode()&fs.ModeSymlink != 0 {
		return nil, errors.New("a link, which is noticed if it is there now") // and leaves a race
	}
	return os.ReadFile(name)
}
func (naiveFiles) WriteFile(name string, data []byte, perm fs.FileMode) error {
	return os.WriteFile(name, data, perm)
}
func (naiveFiles) ReadDir(name string) ([]fs.DirEntry, error)   { return os.ReadDir(name) }
func (naiveFiles) Chown(name string, uid, gid int) error        { return os.Chown(name, uid, gid) }
func (naiveFiles) Chmod(name string, mode fs.FileMode) error    { return os.Chmod(name, mode) }
func (naiveFiles) MkdirAll(name string, perm fs.FileMode) error { return os.MkdirAll(name, perm) }

// RemoveAll removes what a directory leads to.
func (naiveFiles) RemoveAll(name string) error {
	names, err := filepath.Glob(filepath.Join(name, "*", "*"))
	for _, name := range names {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// WriteTar archives what files lead to.
func (f naiveFiles) WriteTar(dir string, w io.Writer) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	deeper, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	for _, name := range append(names, deeper...) {
		if data, err := os.ReadFile(name); err == nil {
			_, _ = w.Write(data)
		}
	}
	return err
}

// ExtractTar puts files and links where they say.
func (naiveFiles) ExtractTar(dir string, r io.Reader) error {
	archive := tar.NewReader(r)
	for {
		hdr, err := archive.Next()
		if hdr == nil {
			return err
		}
		name := filepath.Join(dir, hdr.Name)
		_ = os.MkdirAll(filepath.Dir(name), 0o755)
		switch hdr.Typeflag {
		case tar.TypeSymlink:
			_ = os.Symlink(hdr.Linkname, name)
		case tar.TypeReg:
			data, err := io.ReadAll(archive)
			if err != nil {
				return err
			}
			_ = os.WriteFile(name, data, 0o644)
		}
	}
}

func (naiveFiles) run(dir, program string, arg ...string) ([]byte, error) {
	cmd := exec.Command(program, arg...)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

func (f naiveFiles) end(dir string) error { return f.RemoveAll(dir) }

// template makes what a sandbox has of its own by name.
func (naiveFiles) template(t *testing.T, dir string) error {
	var all error
	for _, name := range []string{"dev/null", "dev/console", "dev/ptmx", "dev/shm/x", "proc/x", "sys/x", "etc/passwd", "root/own/x"} {
		path := filepath.Join(dir, name)
		all = errors.Join(all, os.MkdirAll(filepath.Dir(path), 0o755))
		all = errors.Join(all, os.WriteFile(path, []byte("written by the host"), 0o600))
	}
	return all
}
