package fsapi_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/fsapi"
)

// dirAgent is an agent for the files of a directory, where all names start.
type dirAgent struct {
	fsapi.Agent // what is not below isn't asked for

	dir     string
	untyped bool                     // entries have no type, as on some file systems
	entries func(n int) error        // called before entry n is listed
	open    func() (*os.File, error) // in the place of Open
	calls   []string
	listed  int
}

func (a *dirAgent) path(name string) string {
	a.calls = append(a.calls, name)
	return filepath.Join(a.dir, name)
}

// errno is the errno in err, as agents give it.
func errno(err error) error {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

func (a *dirAgent) Open(name string, flags int, perm uint32) (*os.File, error) {
	if a.open != nil {
		return a.open()
	}
	fd, err := syscall.Open(a.path(name), flags|syscall.O_CLOEXEC, perm)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (a *dirAgent) ReadDir(dir *os.File) ([]fsapi.Entry, error) {
	list, err := dir.ReadDir(2)
	var out []fsapi.Entry
	for _, d := range list {
		if a.entries != nil {
			if err := a.entries(a.listed); err != nil {
				return nil, err
			}
		}
		a.listed++
		e := fsapi.Entry{Name: d.Name()}
		if !a.untyped {
			e.Type = uint8(unixType(d.Type()) >> 12)
		}
		out = append(out, e)
	}
	return out, errno(err)
}

func (a *dirAgent) Fstat(f *os.File) (fsapi.Stat, error) { return stat(f.Stat()) }
func (a *dirAgent) Stat(name string) (fsapi.Stat, error) { return stat(os.Stat(a.path(name))) }
func (a *dirAgent) Lstat(name string) (fsapi.Stat, error) {
	return stat(os.Lstat(a.path(name)))
}

func (a *dirAgent) Readlink(name string) (string, error) {
	target, err := os.Readlink(a.path(name))
	return target, errno(err)
}

func (a *dirAgent) Mkdir(name string, perm uint32) error {
	return errno(os.Mkdir(a.path(name), fs.FileMode(perm)))
}

func (a *dirAgent) MkdirAll(name string, perm uint32) error {
	return errno(os.MkdirAll(a.path(name), fs.FileMode(perm)))
}
func (a *dirAgent) Remove(name string) error    { return errno(os.Remove(a.path(name))) }
func (a *dirAgent) RemoveAll(name string) error { return errno(os.RemoveAll(a.path(name))) }
func (a *dirAgent) Rename(oldname, newname string) error {
	return errno(os.Rename(a.path(oldname), a.path(newname)))
}
func (a *dirAgent) Symlink(target, name string) error { return errno(os.Symlink(target, a.path(name))) }
func (a *dirAgent) Chmod(name string, mode uint32) error {
	return errno(syscall.Chmod(a.path(name), mode))
}
func (a *dirAgent) Chown(name string, uid, gid int) error {
	return errno(os.Chown(a.path(name), uid, gid))
}

// unixType is the type of a mode as in inode(7).
func unixType(m fs.FileMode) uint32 {
	switch m.Type() {
	case fs.ModeDir:
		return 0o040000
	case fs.ModeSymlink:
		return 0o120000
	case fs.ModeNamedPipe:
		return 0o010000
	default:
		return 0o100000
	}
}

func stat(fi fs.FileInfo, err error) (fsapi.Stat, error) {
	if err != nil {
		return fsapi.Stat{}, errno(err)
	}
	mode := uint32(fi.Mode().Perm()) | unixType(fi.Mode())
	for bit, m := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if fi.Mode()&m != 0 {
			mode |= bit
		}
	}
	return fsapi.Stat{Mode: mode, Size: fi.Size(), Mtime: fi.ModTime().UnixNano()}, nil
}

// newFS makes the FS of a directory of its own.
func newFS(t testing.TB) (*fsapi.FS, *dirAgent) {
	t.Helper()
	agent := &dirAgent{dir: t.TempDir()}
	return fsapi.New(agent), agent
}

// must ends a test whose preparation failed.
func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	fsys, agent := newFS(t)
	f, err := fsys.Create("f")
	must(t, err)
	if f.Name() != "f" {
		t.Errorf("Name() = %q, want f", f.Name())
	}
	_, err = f.WriteString("hello ")
	must(t, err)
	_, err = f.Write([]byte("world"))
	must(t, err)
	if n, err := f.ReadFrom(strings.NewReader("!?")); n != 2 || err != nil {
		t.Errorf("ReadFrom = %d, %v, want 2", n, err)
	}
	_, err = f.WriteAt([]byte("W"), 6)
	must(t, err, f.Truncate(12), f.Sync())
	if off, err := f.Seek(-6, io.SeekEnd); off != 6 || err != nil {
		t.Errorf("Seek = %d, %v, want 6", off, err)
	}
	var rest bytes.Buffer
	if n, err := f.WriteTo(&rest); n != 6 || err != nil || rest.String() != "World!" {
		t.Errorf("WriteTo = %d, %v, and %q, want World!", n, err, &rest)
	}
	b := make([]byte, 5)
	if n, err := f.ReadAt(b, 0); n != 5 || err != nil || string(b) != "hello" {
		t.Errorf("ReadAt = %d, %v, and %q, want hello", n, err, b)
	}
	if n, err := f.Read(b); n != 0 || err != io.EOF {
		t.Errorf("Read at the end = %d, %v, want io.EOF", n, err)
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != 12 || fi.Name() != "f" || !fi.Mode().IsRegular() {
		t.Errorf("Stat() = %v, %v", fi, err)
	}
	must(t, f.Close())
	if _, err := f.Read(b); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Read after Close: %v, want fs.ErrClosed", err)
	}
	if got, err := os.ReadFile(agent.dir + "/f"); err != nil || string(got) != "hello World!" {
		t.Errorf("the file holds %q, %v", got, err)
	}
}

func TestAppend(t *testing.T) {
	fsys, _ := newFS(t)
	must(t, fsys.WriteFile("f", []byte("old"), 0o644))
	f, err := fsys.OpenFile("f", os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	if _, err := f.WriteAt([]byte("new"), 0); err == nil {
		t.Error("WriteAt in a file that is appended to: no error, want one, as os has it")
	}
	_, err = f.WriteString(" new")
	must(t, err)
	if got, err := fsys.ReadFile("f"); err != nil || string(got) != "old new" {
		t.Errorf("the file holds %q, %v, want what was appended at its end", got, err)
	}
}

func TestReadWriteFile(t *testing.T) {
	fsys, agent := newFS(t)
	for _, want := range []string{"", "a", strings.Repeat("long ", 10_000), "short"} { // each in the place of the last
		if err := fsys.WriteFile("f", []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		if got, err := fsys.ReadFile("f"); err != nil || string(got) != want {
			t.Errorf("ReadFile = %d bytes, %v, want %d", len(got), err, len(want))
		}
	}
	fi, err := os.Stat(agent.dir + "/f")
	must(t, err)
	if fi.Mode() != 0o640 {
		t.Errorf("mode is %v, want 0640", fi.Mode())
	}
	must(t, fsys.Mkdir("d", 0o755))
	if _, err := fsys.ReadFile("d"); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("ReadFile of a directory: %v, want EISDIR", err)
	}
}

// A guest can make a file of any size at no cost, and one that says another size than it has.
func TestReadFileSize(t *testing.T) {
	fsys, agent := newFS(t)
	large := agent.dir + "/large"
	must(t, os.WriteFile(large, nil, 0o600), os.Truncate(large, fsapi.MaxReadFile+1))
	var perr *fs.PathError
	if b, err := fsys.ReadFile("large"); b != nil || !errors.Is(err, syscall.EFBIG) || !errors.As(err, &perr) || perr.Path != "large" {
		t.Errorf("ReadFile of MaxReadFile + 1 bytes: %d bytes, %v, want EFBIG of large", len(b), err)
	}

	want := strings.Repeat("more than the size says ", 10_000)
	agent.open = func() (*os.File, error) {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		go func() {
			_, _ = io.WriteString(w, want)
			_ = w.Close()
		}()
		return r, nil
	}
	if b, err := fsys.ReadFile("f"); err != nil || string(b) != want {
		t.Errorf("ReadFile = %d bytes, %v, want %d", len(b), err, len(want))
	}
}

func TestErrors(t *testing.T) {
	fsys, _ := newFS(t)
	must(t, fsys.WriteFile("f", nil, 0o644), fsys.MkdirAll("d/sub", 0o755))
	tests := []struct {
		op, path string
		do       func() error
		want     error
	}{
		{"open", "none", func() error { _, err := fsys.Open("none"); return err }, syscall.ENOENT},
		{"open", "none/f", func() error { return fsys.WriteFile("none/f", nil, 0o644) }, syscall.ENOENT},
		{"open", "f", func() error { _, err := fsys.OpenFile("f", os.O_CREATE|os.O_EXCL, 0o644); return err }, syscall.EEXIST},
		{"open", "none", func() error { _, err := fsys.ReadDir("none"); return err }, syscall.ENOENT},
		{"stat", "f/x", func() error { _, err := fsys.Stat("f/x"); return err }, syscall.ENOTDIR},
		{"stat", "f/x", func() error { _, err := fsys.Exists("f/x"); return err }, syscall.ENOTDIR},
		{"lstat", "none", func() error { _, err := fsys.Lstat("none"); return err }, syscall.ENOENT},
		{"readlink", "f", func() error { _, err := fsys.Readlink("f"); return err }, syscall.EINVAL},
		{"mkdir", "d", func() error { return fsys.Mkdir("d", 0o755) }, syscall.EEXIST},
		{"mkdir", "f/x", func() error { return fsys.MkdirAll("f/x", 0o755) }, syscall.ENOTDIR},
		{"remove", "d", func() error { return fsys.Remove("d") }, syscall.ENOTEMPTY},
		{"unlinkat", "f/x", func() error { return fsys.RemoveAll("f/x") }, syscall.ENOTDIR},
		{"rename", "none", func() error { return fsys.Rename("none", "other") }, syscall.ENOENT},
		{"symlink", "target", func() error { return fsys.Symlink("target", "f") }, syscall.EEXIST},
		{"chmod", "none", func() error { return fsys.Chmod("none", 0o644) }, syscall.ENOENT},
		{"chown", "none", func() error { return fsys.Chown("none", -1, -1) }, syscall.ENOENT},
	}
	for _, tt := range tests {
		t.Run(tt.op+" "+tt.path, func(t *testing.T) {
			err := tt.do()
			var perr *fs.PathError
			if !errors.Is(err, tt.want) || !errors.As(err, &perr) || perr.Op != tt.op || perr.Path != tt.path {
				t.Errorf("error is %#v, want %v in an *fs.PathError of %s %s", err, tt.want, tt.op, tt.path)
			}
		})
	}
	var lerr *os.LinkError
	if err := fsys.Rename("none", "other"); !errors.As(err, &lerr) || lerr.Old != "none" || lerr.New != "other" {
		t.Errorf("Rename: %v, want an *os.LinkError of both names", err)
	}
}

func TestTree(t *testing.T) {
	fsys, agent := newFS(t)
	must(t, fsys.MkdirAll("a/b/c", 0o755), fsys.MkdirAll("a/b/c", 0o755), fsys.WriteFile("a/f", []byte("f"), 0o644),
		fsys.Rename("a/f", "a/b/g"), fsys.Symlink("b/g", "a/link"), fsys.Symlink("nowhere", "dangling"), fsys.Chown("a/b/g", -1, -1))
	if target, err := fsys.Readlink("a/link"); err != nil || target != "b/g" {
		t.Errorf("Readlink = %q, %v, want b/g", target, err)
	}
	for name, want := range map[string]bool{"a/b/g": true, "a/link": true, "a/f": false, "dangling": false, "none/x": false} {
		if got, err := fsys.Exists(name); got != want || err != nil {
			t.Errorf("Exists(%s) = %v, %v, want %v", name, got, err, want)
		}
	}
	if fi, err := fsys.Stat("a/link"); err != nil || fi.Mode().Type() != 0 || fi.Size() != 1 {
		t.Errorf("Stat of a link = %v, %v, want the file it leads to", fi, err)
	}
	if fi, err := fsys.Lstat("a/link"); err != nil || fi.Mode().Type() != fs.ModeSymlink {
		t.Errorf("Lstat of a link = %v, %v, want the link", fi, err)
	}
	must(t, fsys.Remove("dangling"), fsys.RemoveAll("a"), fsys.RemoveAll("a"))
	if list, err := fsys.ReadDir("."); err != nil || len(list) > 0 {
		t.Errorf("left are %v, %v", list, err)
	}
	calls := len(agent.calls)
	if err := fsys.RemoveAll(""); err != nil || len(agent.calls) != calls {
		t.Errorf(`RemoveAll("") = %v, and asks the agent; want nothing, as os has it`, err)
	}
}

func TestMode(t *testing.T) {
	fsys, agent := newFS(t)
	must(t, fsys.WriteFile("f", nil, 0o644), fsys.Mkdir("d", 0o755))
	tests := []struct {
		name string
		mode fs.FileMode // as it is asked for
		want fs.FileMode // as it is shown
	}{
		{"f", 0o644, 0o644},
		{"f", 0, 0},
		{"f", 0o755 | fs.ModeSetuid, 0o755 | fs.ModeSetuid},
		{"f", 0o755 | fs.ModeSetgid, 0o755 | fs.ModeSetgid},
		{"f", 0o644 | fs.ModeDir | fs.ModeSymlink, 0o644}, // a type can't be set
		{"d", 0o777 | fs.ModeSticky, fs.ModeDir | 0o777 | fs.ModeSticky},
		{"d", 0o700, fs.ModeDir | 0o700},
	}
	for _, tt := range tests {
		must(t, fsys.Chmod(tt.name, tt.mode))
		got, err := fsys.Stat(tt.name)
		must(t, err)
		if got.Mode() != tt.want || got.IsDir() != tt.want.IsDir() {
			t.Errorf("Chmod(%s, %v) makes it %v, want %v", tt.name, tt.mode, got.Mode(), tt.want)
		}
		host, err := os.Stat(filepath.Join(agent.dir, tt.name))
		must(t, err)
		if host.Mode() != tt.want {
			t.Errorf("Chmod(%s, %v) makes it %v, want %v", tt.name, tt.mode, host.Mode(), tt.want)
		}
	}
}

func TestFileInfo(t *testing.T) {
	fsys, agent := newFS(t)
	must(t, fsys.MkdirAll("a/b", 0o755), os.Chtimes(agent.dir+"/a/b", time.Time{}, time.Unix(12, 345)))
	for name, want := range map[string]string{"a/b": "b", "a/b//": "b", "/a/b": "b", "a": "a", "/": "/", ".": ".", "a/b/..": ".."} {
		if fi, err := fsys.Stat(name); err != nil || fi.Name() != want {
			t.Errorf("Stat(%s) = %v, %v, want the name %q", name, fi, err, want)
		}
	}
	fi, err := fsys.Stat("a/b")
	must(t, err)
	if !fi.ModTime().Equal(time.Unix(12, 345)) {
		t.Errorf("ModTime() = %v, want 12 s and 345 ns after the epoch", fi.ModTime())
	}
	if st, ok := fi.Sys().(*fsapi.Stat); !ok || st.Mtime != 12_000_000_345 || st.Mode != 0o40755 {
		t.Errorf("Sys() = %+v, want the *Stat", fi.Sys())
	}
	if s, ok := fi.(interface{ String() string }); !ok || s.String() != fs.FormatFileInfo(fi) {
		t.Errorf("it prints as %v, want %s", fi, fs.FormatFileInfo(fi))
	}
}

// names gives the names of entries.
func names(list []fs.DirEntry) (out []string) {
	for _, d := range list {
		out = append(out, d.Name())
	}
	return out
}

func TestReadDir(t *testing.T) {
	for _, untyped := range []bool{false, true} {
		fsys, agent := newFS(t)
		agent.untyped = untyped
		must(t, fsys.WriteFile("b", []byte("b"), 0o644), fsys.Mkdir("a", 0o755), fsys.Symlink("a", "d"), syscall.Mkfifo(agent.dir+"/c", 0o600))
		list, err := fsys.ReadDir(".")
		if want := []string{"a", "b", "c", "d"}; err != nil || !slices.Equal(names(list), want) {
			t.Fatalf("ReadDir = %v, %v, want %q", list, err, want)
		}
		for i, want := range []fs.FileMode{fs.ModeDir, 0, fs.ModeNamedPipe, fs.ModeSymlink} {
			d := list[i]
			fi, err := d.Info()
			if d.Type() != want || d.IsDir() != want.IsDir() || err != nil || fi.Mode().Type() != want || fi.Name() != d.Name() {
				t.Errorf("%s has type %v, Info() %v, %v, want type %v", d.Name(), d.Type(), fi, err, want)
			}
			if s, ok := d.(interface{ String() string }); !ok || s.String() != fs.FormatDirEntry(d) {
				t.Errorf("%s prints as %v", d.Name(), d)
			}
		}
		must(t, fsys.Remove("b"))
		if _, err := list[1].Info(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Info() of what is removed: %v, want fs.ErrNotExist", err)
		}
	}
}

func TestFileReadDir(t *testing.T) {
	fsys, _ := newFS(t)
	want := []string{"0", "1", "2", "3", "4", "5", "6"}
	for _, name := range want {
		must(t, fsys.WriteFile(name, nil, 0o644))
	}
	dir, err := fsys.Open(".")
	must(t, err)
	defer dir.Close()
	for range 2 {
		var got []string
		for _, n := range []int{1, 3, 100} { // the agent gives two at a time
			list, err := dir.ReadDir(n)
			if err != nil || len(list) > n || len(list) == 0 {
				t.Fatalf("ReadDir(%d) = %v, %v", n, list, err)
			}
			got = append(got, names(list)...)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("listed %q, want %q", got, want)
		}
		if list, err := dir.ReadDir(1); len(list) > 0 || err != io.EOF {
			t.Errorf("ReadDir(1) at the end = %v, %v, want io.EOF", list, err)
		}
		if list, err := dir.ReadDir(0); len(list) > 0 || err != nil {
			t.Errorf("ReadDir(0) at the end = %v, %v, want none", list, err)
		}
		_, err := dir.Seek(0, io.SeekStart)
		must(t, err)
	}
	if _, err := dir.ReadDir(1); err != nil {
		t.Fatal(err)
	}
	_, err = dir.Seek(0, io.SeekStart)
	must(t, err)
	if list, err := dir.ReadDir(-1); err != nil || len(list) != len(want) {
		t.Errorf("ReadDir(-1) after Seek = %v, %v, want all anew", list, err)
	}
	f, err := fsys.Open("0")
	must(t, err)
	defer f.Close()
	if _, err := f.ReadDir(-1); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("ReadDir of a file: %v, want ENOTDIR", err)
	}
}

// What a guest does to a directory that is being listed.
func TestReadDirDisturbed(t *testing.T) {
	fsys, agent := newFS(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		must(t, fsys.WriteFile(name, nil, 0o644))
	}
	agent.untyped = true
	agent.entries = func(n int) error {
		if n == 0 {
			return os.Remove(agent.dir + "/c")
		}
		return nil
	}
	if list, err := fsys.ReadDir("."); err != nil || !slices.Equal(names(list), []string{"a", "b", "d", "e"}) {
		t.Errorf("ReadDir when one is removed = %v, %v, want the rest", list, err)
	}
	agent.entries = func(n int) error {
		if n == 2 {
			return syscall.EIO
		}
		return nil
	}
	agent.listed = 0
	list, err := fsys.ReadDir(".")
	var perr *fs.PathError
	if len(list) != 2 || !errors.Is(err, syscall.EIO) || !errors.As(err, &perr) || perr.Op != "readdirent" || perr.Path != "." {
		t.Errorf("ReadDir = %v, %v, want two, and EIO in an *fs.PathError", list, err)
	}
}
