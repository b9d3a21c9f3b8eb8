package engine_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/fsapi"
)

// file is what *os.File and *fsapi.File have in common.
type file interface {
	io.ReadWriteSeeker
	io.ReaderAt
	io.WriterAt
	io.ReaderFrom
	io.WriterTo
	io.StringWriter
	fs.ReadDirFile
	Readdirnames(int) ([]string, error)
	Readdir(int) ([]fs.FileInfo, error)
	Name() string
	Truncate(int64) error
	Sync() error
	Chmod(fs.FileMode) error
	Chown(int, int) error
}

// fileSystem is what package os and *fsapi.FS have in common.
type fileSystem interface {
	Open(string) (file, error)
	Create(string) (file, error)
	OpenFile(string, int, fs.FileMode) (file, error)
	ReadFile(string) ([]byte, error)
	WriteFile(string, []byte, fs.FileMode) error
	ReadDir(string) ([]fs.DirEntry, error)
	Stat(string) (fs.FileInfo, error)
	Lstat(string) (fs.FileInfo, error)
	Readlink(string) (string, error)
	Mkdir(string, fs.FileMode) error
	MkdirAll(string, fs.FileMode) error
	MkdirTemp(string, string) (string, error)
	Remove(string) error
	RemoveAll(string) error
	Rename(string, string) error
	Symlink(string, string) error
	Link(string, string) error
	Chmod(string, fs.FileMode) error
	Chown(string, int, int) error
	Chtimes(string, time.Time, time.Time) error
	Truncate(string, int64) error
	CopyFS(string, fs.FS) error
	DirFS(string) fs.FS
}

// hostFiles is package os, in the working directory.
type hostFiles struct{}

func (hostFiles) Open(n string) (file, error)   { return opened(os.Open(n)) }
func (hostFiles) Create(n string) (file, error) { return opened(os.Create(n)) }
func (hostFiles) OpenFile(n string, f int, p fs.FileMode) (file, error) {
	return opened(os.OpenFile(n, f, p))
}
func (hostFiles) ReadFile(n string) ([]byte, error)                 { return os.ReadFile(n) }
func (hostFiles) WriteFile(n string, b []byte, p fs.FileMode) error { return os.WriteFile(n, b, p) }
func (hostFiles) ReadDir(n string) ([]fs.DirEntry, error)           { return os.ReadDir(n) }
func (hostFiles) Stat(n string) (fs.FileInfo, error)                { return os.Stat(n) }
func (hostFiles) Lstat(n string) (fs.FileInfo, error)               { return os.Lstat(n) }
func (hostFiles) Readlink(n string) (string, error)                 { return os.Readlink(n) }
func (hostFiles) Mkdir(n string, p fs.FileMode) error               { return os.Mkdir(n, p) }
func (hostFiles) MkdirAll(n string, p fs.FileMode) error            { return os.MkdirAll(n, p) }
func (hostFiles) MkdirTemp(d, p string) (string, error)             { return os.MkdirTemp(d, p) }
func (hostFiles) Remove(n string) error                             { return os.Remove(n) }
func (hostFiles) RemoveAll(n string) error                          { return os.RemoveAll(n) }
func (hostFiles) Rename(a, b string) error                          { return os.Rename(a, b) }
func (hostFiles) Symlink(a, b string) error                         { return os.Symlink(a, b) }
func (hostFiles) Link(a, b string) error                            { return os.Link(a, b) }
func (hostFiles) Chmod(n string, m fs.FileMode) error               { return os.Chmod(n, m) }
func (hostFiles) Chown(n string, uid, gid int) error                { return os.Chown(n, uid, gid) }
func (hostFiles) Chtimes(n string, atime time.Time, mtime time.Time) error {
	return os.Chtimes(n, atime, mtime)
}
func (hostFiles) Truncate(n string, size int64) error { return os.Truncate(n, size) }
func (hostFiles) CopyFS(d string, fsys fs.FS) error   { return os.CopyFS(d, fsys) }
func (hostFiles) DirFS(d string) fs.FS                { return os.DirFS(d) }

// guestFiles is a sandbox's.
type guestFiles struct{ *fsapi.FS }

func (g guestFiles) Open(n string) (file, error)   { return opened(g.FS.Open(n)) }
func (g guestFiles) Create(n string) (file, error) { return opened(g.FS.Create(n)) }
func (g guestFiles) OpenFile(n string, f int, p fs.FileMode) (file, error) {
	return opened(g.FS.OpenFile(n, f, p))
}

// opened makes no file that isn't nil of a pointer that is.
func opened[F file](f F, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// trace is what a case has seen.
type trace struct {
	lines []string
	guest bool // every error is an *fs.PathError
}

func (t *trace) add(what string, values ...any) {
	line := what + ":"
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			line += " ok"
		case error:
			line += " " + errorClass(v)
			if pe := (*fs.PathError)(nil); t.guest && v != io.EOF && !errors.As(v, &pe) {
				line += fmt.Sprintf(" in a %T", v)
			}
		case fs.FileInfo:
			line += " " + describeFile(v)
		case []byte:
			line += fmt.Sprintf(" %.60q", v)
		case string:
			line += fmt.Sprintf(" %q", v)
		default:
			line += fmt.Sprintf(" %v", v)
		}
	}
	t.lines = append(t.lines, line)
}

// errorClass is what errors.Is and errors.As find in an error.
func errorClass(err error) string {
	var list []string
	for _, target := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, fs.ErrInvalid, fs.ErrClosed, io.EOF, io.ErrUnexpectedEOF, errors.ErrUnsupported} {
		if errors.Is(err, target) {
			list = append(list, target.Error())
		}
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		list = append(list, "errno "+strconv.Itoa(int(errno)))
	}
	if list == nil { // one that can't be tested for
		for errors.Unwrap(err) != nil {
			err = errors.Unwrap(err)
		}
		return err.Error()
	}
	return strings.Join(list, ", ")
}

// describe is what can be the same of two files. The size of a directory can't.
func describeFile(fi fs.FileInfo) string {
	s := fmt.Sprintf("%q %v", fi.Name(), fi.Mode())
	if !fi.IsDir() {
		s += fmt.Sprintf(" %d bytes", fi.Size())
	}
	switch st := fi.Sys().(type) {
	case *syscall.Stat_t:
		s += fmt.Sprintf(" of %d:%d", st.Uid, st.Gid)
		if !fi.IsDir() {
			s += fmt.Sprintf(" %d names", st.Nlink)
		}
	case *fsapi.Stat:
		s += fmt.Sprintf(" of %d:%d", st.UID, st.GID)
		if !fi.IsDir() {
			s += fmt.Sprintf(" %d names", st.Nlink)
		}
	}
	return s
}

// tree adds all that is in a directory.
func (t *trace) tree(sys fileSystem, dir string) {
	err := fs.WalkDir(sys.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			t.add("tree "+path, err)
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		t.add("tree "+path, fi)
		return nil
	})
	t.add("tree", err)
}

// names adds the names of entries, sorted.
func (t *trace) names(what string, list []fs.DirEntry, err error) {
	var names []string
	for _, e := range list {
		names = append(names, fs.FormatDirEntry(e))
	}
	slices.Sort(names)
	t.add(what, strings.Join(names, "|"), err)
}

func init() {
	helpers["conform"] = func(args []string) error { // <dir> <uid>: prints what the cases see of package os
		syscall.Umask(0o022)
		uid, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		if err := errors.Join(os.Chdir(args[0]), os.Chown(".", uid, uid), os.Chmod(".", 0o755)); err != nil {
			return err
		}
		if uid != 0 {
			if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
				return err
			}
		}
		return json.NewEncoder(os.Stdout).Encode(conform(hostFiles{}))
	}
}

// conform runs all cases, each in a directory of its own.
func conform(sys fileSystem) map[string][]string {
	all := map[string][]string{}
	for i, c := range conformance {
		_, guest := sys.(guestFiles)
		t := &trace{guest: guest}
		dir := fmt.Sprintf("case%d", i)
		t.add("mkdir", sys.Mkdir(dir, 0o755))
		c.run(t, sys, dir+"/")
		all[c.name] = t.lines
	}
	return all
}

// TestConformance runs the same cases on package os and on a sandbox, as root and as another user. What they see
// must be the same.
func TestConformance(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	for _, user := range []struct {
		name string
		uid  int
	}{{"root", 0}, {"user", 1000}} {
		t.Run(user.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var want map[string][]string
			p := start(t, "conform", dir, strconv.Itoa(user.uid))
			if err := json.NewDecoder(p.out).Decode(&want); err != nil {
				t.Fatal(err)
			}
			sb := create(t, eng, engine.CreateOptions{User: user.name, Dir: "/data"})
			got := conform(guestFiles{sb.FS()})
			for _, c := range conformance {
				t.Run(c.name, func(t *testing.T) { compare(t, got[c.name], want[c.name]) })
			}
		})
	}
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	if len(want) < 2 {
		t.Errorf("the case sees nothing: %q", want)
	}
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("got  %s\n\t\tos   %s", g, w)
		}
	}
}

// awkward are names that are as good as others.
var awkward = []string{"new\nline", "\xff\xfe", strings.Repeat("n", 255), "-rf", " ", "a b\t", "é", "back\\slash", "*", "..."}

var conformance = []struct {
	name string
	run  func(t *trace, sys fileSystem, dir string)
}{
	{"open", func(t *trace, sys fileSystem, dir string) {
		t.add("write", sys.WriteFile(dir+"f", []byte("abc"), 0o640))
		t.add("mkdir", sys.Mkdir(dir+"d", 0o755))
		t.add("link", sys.Symlink("f", dir+"l"))
		t.add("broken", sys.Symlink("nothing", dir+"b"))
		t.add("loop", sys.Symlink("loop", dir+"loop"))
		for _, name := range []string{"f", "d", "l", "b", "loop", "none", "f/x", "none/x", "f/", "d/", "l/", "d/..", strings.Repeat("n", 256), "nul\x00"} {
			for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE | os.O_EXCL, os.O_WRONLY | os.O_APPEND,
				syscall.O_DIRECTORY, syscall.O_NOFOLLOW, os.O_RDWR | os.O_SYNC} {
				f, err := sys.OpenFile(dir+name, flag, 0o666)
				t.add(fmt.Sprintf("open %.20q %#x", name, flag), err)
				if err != nil {
					continue
				}
				fi, err := f.Stat()
				t.add("stat", fi, err)
				t.add("name", f.Name())
				t.add("close", f.Close())
				t.add("close again", f.Close())
			}
		}
		f, err := sys.Open("")
		t.add("empty", f, err)
		t.tree(sys, dir)
	}},
	{"create", func(t *trace, sys fileSystem, dir string) {
		for _, perm := range []fs.FileMode{0, 0o600, 0o777, 0o666, 0o4755 & 0o777, fs.ModeSetuid | 0o755, fs.ModeSetgid | 0o755, fs.ModeSticky | 0o755, fs.ModeDir | 0o700} {
			name := fmt.Sprintf("%s%o", dir, uint32(perm))
			f, err := sys.OpenFile(name, os.O_CREATE|os.O_WRONLY, perm)
			t.add("create "+perm.String(), err)
			if err == nil {
				t.add("close", f.Close())
			}
			t.add("mkdir "+perm.String(), sys.Mkdir(name+"d", perm))
			t.add("mkdirall "+perm.String(), sys.MkdirAll(name+"e/f", perm|0o700))
		}
		f, err := sys.Create(dir + "c")
		t.add("create", err)
		if err == nil {
			n, err := f.Write([]byte("x"))
			t.add("write", n, err)
			t.add("close", f.Close())
		}
		f, err = sys.Create(dir + "c")
		t.add("again", err)
		if err == nil {
			t.add("close", f.Close())
		}
		t.tree(sys, dir)
	}},
	{"file", func(t *trace, sys fileSystem, dir string) {
		f, err := sys.OpenFile(dir+"f", os.O_RDWR|os.O_CREATE, 0o644)
		if t.add("open", err); err != nil {
			return
		}
		n, err := f.WriteString("hello world")
		t.add("write", n, err)
		n, err = f.WriteAt([]byte("W"), 6)
		t.add("writeat", n, err)
		n, err = f.WriteAt([]byte("W"), -1)
		t.add("writeat -1", n, err)
		off, err := f.Seek(-5, io.SeekEnd)
		t.add("seek", off, err)
		b := make([]byte, 4)
		n, err = f.Read(b)
		t.add("read", b[:n], err)
		n, err = f.Read(b)
		t.add("read", b[:n], err)
		n, err = f.Read(b)
		t.add("read", b[:n], err)
		n, err = f.Read(nil)
		t.add("read nothing", n, err)
		n, err = f.ReadAt(b, 9)
		t.add("readat", b[:n], err)
		n, err = f.ReadAt(b, -1)
		t.add("readat -1", b[:n], err)
		off, err = f.Seek(-1, io.SeekStart)
		t.add("seek -1", off, err)
		off, err = f.Seek(0, 99)
		t.add("seek 99", off, err)
		t.add("truncate", f.Truncate(5))
		t.add("truncate -1", f.Truncate(-1))
		off, err = f.Seek(0, io.SeekStart)
		t.add("seek", off, err)
		var buf bytes.Buffer
		off, err = f.WriteTo(&buf)
		t.add("writeto", off, err, buf.Bytes())
		off, err = f.ReadFrom(strings.NewReader(" again"))
		t.add("readfrom", off, err)
		t.add("sync", f.Sync())
		t.add("chmod", f.Chmod(0o600|fs.ModeSetgid))
		t.add("chown", f.Chown(-1, -1))
		t.add("chown other", f.Chown(1000, 1000))
		t.add("chown root", f.Chown(0, -1))
		list, err := f.ReadDir(-1)
		t.names("readdir", list, err)
		names, err := f.Readdirnames(-1)
		t.add("readdirnames", len(names), err)
		fi, err := f.Stat()
		t.add("stat", fi, err)
		t.add("close", f.Close())
		closed(t, f)
		t.tree(sys, dir)
	}},
	{"file modes", func(t *trace, sys fileSystem, dir string) {
		t.add("write", sys.WriteFile(dir+"f", []byte("abc"), 0o644))
		r, err := sys.Open(dir + "f")
		if t.add("open", err); err != nil {
			return
		}
		n, err := r.Write([]byte("x"))
		t.add("write to read-only", n, err)
		t.add("truncate read-only", r.Truncate(0))
		t.add("close", r.Close())
		a, err := sys.OpenFile(dir+"f", os.O_WRONLY|os.O_APPEND, 0)
		if t.add("open", err); err != nil {
			return
		}
		n, err = a.Read(make([]byte, 1))
		t.add("read from write-only", n, err)
		n, err = a.WriteString("def")
		t.add("append", n, err)
		n, err = a.WriteAt([]byte("def"), 0)
		t.add("writeat in append mode", n, err != nil)
		t.add("close", a.Close())
		b, err := sys.ReadFile(dir + "f")
		t.add("read", b, err)
		d, err := sys.Open(dir)
		if t.add("open", err); err != nil {
			return
		}
		n, err = d.Read(make([]byte, 1))
		t.add("read a directory", n, err)
		n, err = d.Write(make([]byte, 1))
		t.add("write a directory", n, err)
		t.add("truncate a directory", d.Truncate(0))
		t.add("chmod a directory", d.Chmod(0o700))
		t.add("sync a directory", d.Sync())
		t.add("close", d.Close())
		closed(t, d)
	}},
	{"readfile and writefile", func(t *trace, sys fileSystem, dir string) {
		for _, size := range []int{0, 1, 511, 512, 513, 100_000} {
			name := fmt.Sprintf("%sf%d", dir, size)
			t.add("write", sys.WriteFile(name, bytes.Repeat([]byte("x"), size), 0o644))
			b, err := sys.ReadFile(name)
			t.add("read", len(b), b == nil, err)
		}
		t.add("shorter", sys.WriteFile(dir+"f513", []byte("new"), 0o777))
		b, err := sys.ReadFile(dir + "f513")
		t.add("read", b, err)
		for _, name := range []string{"none", "none/x", ".", "f1/x", ""} {
			b, err := sys.ReadFile(dir + name)
			t.add("read "+name, b, err)
			t.add("write "+name, sys.WriteFile(dir+name, nil, 0o644))
		}
		b, err = sys.ReadFile("/proc/version")
		t.add("read /proc", len(b) > 0, err)
		b, err = sys.ReadFile("/etc/passwd")
		t.add("read /etc", len(b) > 0, err)
		t.tree(sys, dir)
	}},
	{"mkdir and remove", func(t *trace, sys fileSystem, dir string) {
		t.add("mkdirall", sys.MkdirAll(dir+"a/b/c", 0o755))
		t.add("mkdirall again", sys.MkdirAll(dir+"a/b/c/", 0o700))
		t.add("mkdir again", sys.Mkdir(dir+"a", 0o755))
		t.add("mkdir below nothing", sys.Mkdir(dir+"x/y", 0o755))
		t.add("write", sys.WriteFile(dir+"f", nil, 0o644))
		t.add("mkdir on a file", sys.Mkdir(dir+"f", 0o755))
		t.add("mkdirall on a file", sys.MkdirAll(dir+"f", 0o755))
		t.add("mkdirall below a file", sys.MkdirAll(dir+"f/g/h", 0o755))
		t.add("mkdir below a file", sys.Mkdir(dir+"f/g", 0o755))
		t.add("link", sys.Symlink("a", dir+"l"))
		t.add("mkdirall through a link", sys.MkdirAll(dir+"l/d", 0o755))
		t.add("mkdir empty", sys.Mkdir("", 0o755))
		t.add("mkdirall empty", sys.MkdirAll("", 0o755))
		t.add("remove full", sys.Remove(dir+"a"))
		t.add("remove none", sys.Remove(dir+"none"))
		t.add("remove below a file", sys.Remove(dir+"f/x"))
		t.add("remove slash", sys.Remove(dir+"f/"))
		t.add("remove dot", sys.Remove(dir+"a/."))
		t.add("remove empty", sys.Remove(""))
		t.add("remove a link", sys.Remove(dir+"l"))
		t.add("remove a directory", sys.Remove(dir+"a/d"))
		t.add("remove long", sys.Remove(dir+strings.Repeat("n", 256)))
		t.tree(sys, dir)
		t.add("removeall dot", sys.RemoveAll(dir+"a/."))
		t.add("removeall", sys.RemoveAll(dir+"a"))
		t.add("removeall again", sys.RemoveAll(dir+"a"))
		t.add("removeall below a file", sys.RemoveAll(dir+"f/x"))
		t.add("removeall empty", sys.RemoveAll(""))
		t.add("removeall a file", sys.RemoveAll(dir+"f"))
		t.add("removeall nul", sys.RemoveAll(dir+"\x00"))
		t.tree(sys, dir)
	}},
	{"mkdirtemp", func(t *trace, sys fileSystem, dir string) {
		for _, pattern := range []string{"", "x", "x*", "*x", "a*b*c", "a/b", strings.Repeat("n", 255)} {
			name, err := sys.MkdirTemp(dir, pattern)
			t.add("mkdirtemp "+pattern, strings.HasPrefix(name, dir), len(name) > len(dir)+len(pattern), err)
			if err == nil {
				fi, err := sys.Stat(name)
				t.add("stat", fi.Mode(), err)
				t.add("remove", sys.Remove(name))
			}
		}
		_, err := sys.MkdirTemp(dir+"none", "x")
		t.add("in nothing", err)
		name, err := sys.MkdirTemp("", "x")
		t.add("default", strings.HasPrefix(name, "/"), err)
		t.add("remove", sys.Remove(name))
	}},
	{"rename", func(t *trace, sys fileSystem, dir string) {
		t.add("mkdir", errors.Join(sys.MkdirAll(dir+"a/b", 0o755), sys.Mkdir(dir+"empty", 0o755), sys.MkdirAll(dir+"full/x", 0o755)))
		t.add("write", errors.Join(sys.WriteFile(dir+"f", []byte("f"), 0o644), sys.WriteFile(dir+"g", []byte("gg"), 0o644)))
		t.add("link", sys.Symlink("f", dir+"l"))
		for _, pair := range [][2]string{{"f", "g"}, {"none", "x"}, {"g", "none/x"}, {"g", "a"}, {"a", "g"}, {"a", "a/b/c"}, {"a", "full"}, {"a", "empty"},
			{"g", "g"}, {"l", "m"}, {"g", "m"}, {"g", ""}, {"", "g"}, {"m/x", "y"}, {"full", "full"}, {"m", "m/"}, {"full", "dir/"}, {"m", strings.Repeat("n", 256)}} {
			old, to := dir+pair[0], dir+pair[1]
			t.add(fmt.Sprintf("rename %s %.10s", pair[0], pair[1]), sys.Rename(old, to))
		}
		t.add("empty", sys.Rename("", dir+"x"), sys.Rename(dir+"m", ""))
		t.tree(sys, dir)
	}},
	{"links", func(t *trace, sys fileSystem, dir string) {
		t.add("write", sys.WriteFile(dir+"f", []byte("f"), 0o644))
		t.add("mkdir", sys.Mkdir(dir+"d", 0o755))
		for _, pair := range [][2]string{{"f", "s"}, {"f", "s"}, {"none", "broken"}, {"/etc/passwd", "abs"}, {"..", "up"}, {"", "x"}, {"x", "none/y"}, {"new\nline\xff", "odd"}, {strings.Repeat("t", 4095), "long"}, {strings.Repeat("t", 4096), "longer"}} {
			t.add(fmt.Sprintf("symlink %.10q %s", pair[0], pair[1]), sys.Symlink(pair[0], dir+pair[1]))
			target, err := sys.Readlink(dir + pair[1])
			t.add("readlink", len(target), target, err)
		}
		for _, name := range []string{"f", "d", "none", "f/x", ""} {
			target, err := sys.Readlink(dir + name)
			t.add("readlink "+name, target, err)
		}
		for _, pair := range [][2]string{{"f", "h"}, {"f", "h"}, {"d", "hd"}, {"none", "x"}, {"s", "hs"}, {"broken", "hb"}, {"f", "none/x"}, {"f/x", "y"}, {"", "y"}} {
			t.add("link "+pair[0]+" "+pair[1], sys.Link(dir+pair[0], dir+pair[1]))
		}
		t.add("write through", sys.WriteFile(dir+"h", []byte("both"), 0o600))
		for _, name := range []string{"f", "h", "s", "hs", "broken", "abs", "up", "up/.", "d/../s", "odd"} {
			fi, err := sys.Lstat(dir + name)
			t.add("lstat "+name, fi, err)
			if name == "abs" || name == "up" || name == "up/." {
				continue
			}
			fi, err = sys.Stat(dir + name)
			t.add("stat "+name, fi, err)
		}
		t.tree(sys, dir)
	}},
	{"chmod and chown", func(t *trace, sys fileSystem, dir string) {
		t.add("write", sys.WriteFile(dir+"f", []byte("f"), 0o644))
		t.add("mkdir", sys.Mkdir(dir+"d", 0o755))
		t.add("link", errors.Join(sys.Symlink("f", dir+"l"), sys.Symlink("none", dir+"b")))
		for _, mode := range []fs.FileMode{0, 0o777, 0o600 | fs.ModeSetuid, 0o710 | fs.ModeSetgid, 0o755 | fs.ModeSticky, 0o1644 & 0o777, fs.ModeDir | 0o700} {
			for _, name := range []string{"f", "d", "l", "b", "none", "f/x"} {
				t.add("chmod "+mode.String()+" "+name, sys.Chmod(dir+name, mode))
				if fi, err := sys.Stat(dir + name); err == nil {
					t.add("stat", fi)
				}
			}
		}
		for _, ids := range [][2]int{{-1, -1}, {1000, 1000}, {0, 0}, {-1, 1000}, {7, -1}} {
			for _, name := range []string{"f", "d", "l", "b", "none"} {
				t.add(fmt.Sprintf("chown %d %s", ids, name), sys.Chown(dir+name, ids[0], ids[1]))
			}
			t.tree(sys, dir)
		}
	}},
	{"permission", func(t *trace, sys fileSystem, dir string) {
		t.add("write", sys.WriteFile(dir+"secret", []byte("x"), 0o000))
		t.add("mkdir", errors.Join(sys.MkdirAll(dir+"closed/d", 0o755), sys.MkdirAll(dir+"fixed/d", 0o755), sys.WriteFile(dir+"fixed/f", nil, 0o644)))
		t.add("chmod", errors.Join(sys.Chmod(dir+"closed", 0), sys.Chmod(dir+"fixed", 0o555)))
		b, err := sys.ReadFile(dir + "secret")
		t.add("read", b, err)
		list, err := sys.ReadDir(dir + "closed")
		t.names("list closed", list, err)
		fi, err := sys.Stat(dir + "closed/d")
		t.add("stat in closed", fi, err)
		fi, err = sys.Stat(dir + "closed/none")
		t.add("stat none in closed", fi, err)
		t.add("mkdir in fixed", sys.Mkdir(dir+"fixed/e", 0o755))
		t.add("remove in fixed", sys.Remove(dir+"fixed/d"))
		t.add("removeall in fixed", sys.RemoveAll(dir+"fixed"))
		t.add("rename in fixed", sys.Rename(dir+"fixed/f", dir+"fixed/g"))
		t.add("write /etc", sys.WriteFile("/etc/hostname.d/x", nil, 0o644))
		t.add("mkdir in /proc", sys.Mkdir("/proc/x", 0o755))
		t.add("truncate", sys.Truncate(dir+"secret", 0))
		t.add("chtimes", sys.Chtimes("/etc/passwd", time.Unix(1, 0), time.Time{}) == nil == (sys.Chown(dir+"secret", 0, 0) == nil))
		t.tree(sys, dir)
		t.add("chmod", sys.Chmod(dir+"closed", 0o700))
	}},
	{"times and sizes", func(t *trace, sys fileSystem, dir string) {
		t.add("write", sys.WriteFile(dir+"f", []byte("12345"), 0o644))
		t.add("link", errors.Join(sys.Symlink("f", dir+"l"), sys.Symlink("none", dir+"b"), sys.Mkdir(dir+"d", 0o755)))
		for _, times := range [][2]time.Time{{time.Unix(1, 2), time.Unix(3, 4)}, {{}, time.Unix(5, 999_999_999)}, {time.Unix(6, 0), {}}, {{}, {}}, {time.Unix(-10, 5), time.Unix(-20, 7)}, {time.Unix(1<<32, 0), time.Unix(1<<33, 1)}} {
			for _, name := range []string{"f", "l", "d", "b", "none", "f/x", ""} {
				t.add("chtimes "+name, sys.Chtimes(dir+name, times[0], times[1]))
				if fi, err := sys.Stat(dir + name); err == nil && name != "" && (!times[1].IsZero() || name == "f") {
					t.add("stat", fi.ModTime().UnixNano(), atime(fi))
				}
			}
		}
		for _, size := range []int64{3, 0, 1 << 20, -1, 7} {
			for _, name := range []string{"f", "l", "d", "b", "none", "f/x", ""} {
				t.add(fmt.Sprint("truncate ", name, size), sys.Truncate(dir+name, size))
			}
			fi, err := sys.Stat(dir + "f")
			t.add("stat", fi, err)
		}
	}},
	{"readdir", func(t *trace, sys fileSystem, dir string) {
		for i := range 10 {
			t.add("write", sys.WriteFile(fmt.Sprintf("%sf%d", dir, i), nil, 0o644))
		}
		t.add("other", errors.Join(sys.Mkdir(dir+"d", 0o755), sys.Symlink("x", dir+"l")))
		list, err := sys.ReadDir(dir)
		t.names("readdir", list, err)
		t.add("sorted", slices.IsSortedFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }))
		for _, name := range []string{"none", "f0", "f0/x", "l", "d", ""} {
			list, err := sys.ReadDir(dir + name)
			t.names("readdir "+name, list, err)
		}
		d, err := sys.Open(dir)
		if t.add("open", err); err != nil {
			return
		}
		var all []fs.DirEntry
		for _, n := range []int{1, 3, 5, 100, 1, 1, 0, -1} {
			list, err := d.ReadDir(n)
			t.add(fmt.Sprint("readdir ", n), len(list), list == nil, err)
			all = append(all, list...)
		}
		t.names("all", all, nil)
		off, err := d.Seek(0, io.SeekStart)
		t.add("rewind", off, err)
		names, err := d.Readdirnames(4)
		t.add("readdirnames", len(names), err)
		infos, err := d.Readdir(-1)
		t.add("readdir", len(infos), err)
		names, err = d.Readdirnames(4)
		t.add("at the end", len(names), err)
		infos, err = d.Readdir(4)
		t.add("at the end", len(infos), err)
		_, _ = d.Seek(0, io.SeekStart)
		t.add("remove", sys.Remove(dir+"f3"))
		slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }) // each file system has its order
		for _, e := range all {
			if fi, err := e.Info(); e.Name() != "d" {
				t.add("info "+e.Name()[:1], fi == nil, e.Name() == "f3", err)
			}
		}
		t.add("close", d.Close())
	}},
	{"removed", func(t *trace, sys fileSystem, dir string) {
		t.add("write", sys.WriteFile(dir+"f", []byte("abc"), 0o644))
		t.add("mkdir", sys.Mkdir(dir+"d", 0o755))
		f, err := sys.OpenFile(dir+"f", os.O_RDWR, 0)
		if t.add("open", err); err != nil {
			return
		}
		d, err := sys.Open(dir + "d")
		if t.add("open", err); err != nil {
			return
		}
		t.add("remove", sys.RemoveAll(dir))
		b, err := io.ReadAll(f)
		t.add("read", b, err)
		n, err := f.WriteString("more")
		t.add("write", n, err)
		t.add("chmod", f.Chmod(0o600))
		fi, err := f.Stat()
		t.add("stat", fi, err)
		list, err := d.ReadDir(-1)
		t.names("readdir", list, err)
		fi, err = d.Stat()
		t.add("stat", fi, err)
		t.add("close", f.Close(), d.Close())
	}},
	{"awkward names", func(t *trace, sys fileSystem, dir string) {
		for _, name := range awkward {
			t.add(fmt.Sprintf("write %q", name), sys.WriteFile(dir+name, []byte(name), 0o644))
			b, err := sys.ReadFile(dir + name)
			t.add("read", b, err)
			fi, err := sys.Lstat(dir + name)
			t.add("lstat", fi, err)
			t.add("symlink", sys.Symlink(name, dir+"link"))
			target, err := sys.Readlink(dir + "link")
			t.add("readlink", target, err)
			t.add("remove", sys.Remove(dir+"link"))
			t.add("rename", sys.Rename(dir+name, dir+"moved"), sys.Rename(dir+"moved", dir+name))
		}
		list, err := sys.ReadDir(dir)
		t.names("readdir", list, err)
		for _, name := range awkward {
			t.add(fmt.Sprintf("remove %q", name), sys.Remove(dir+name))
		}
		t.tree(sys, dir)
	}},
	{"copyfs", func(t *trace, sys fileSystem, dir string) {
		from := fstest.MapFS{
			"a/b/c":  {Data: []byte("c"), Mode: 0o755},
			"a/f":    {Data: []byte("ff"), Mode: 0o600},
			"ro":     {Data: []byte("r"), Mode: 0o444},
			"a/link": {Data: []byte("../ro"), Mode: fs.ModeSymlink | 0o777},
			"a\nb":   {Mode: 0o666},
			"empty":  {Mode: fs.ModeDir | 0o700},
		}
		t.add("copy", sys.CopyFS(dir+"new/dir", from))
		t.tree(sys, dir)
		t.add("again", sys.CopyFS(dir+"new/dir", from))
		t.add("pipe", sys.CopyFS(dir+"other", fstest.MapFS{"p": {Mode: fs.ModeNamedPipe}}))
		t.add("on a file", sys.CopyFS(dir+"new/dir/ro", from))
		t.add("empty", sys.CopyFS(dir+"e", fstest.MapFS{}))
		t.add("from itself", sys.CopyFS(dir+"copy", sys.DirFS(dir+"new")))
		t.tree(sys, dir)
	}},
	{"dirfs", func(t *trace, sys fileSystem, dir string) {
		t.add("make", errors.Join(sys.MkdirAll(dir+"a/b", 0o755), sys.WriteFile(dir+"a/f", []byte("f"), 0o644), sys.Symlink("f", dir+"a/l"), sys.Symlink("../..", dir+"a/up")))
		d := sys.DirFS(dir)
		for _, name := range []string{".", "a", "a/f", "a/l", "a/up", "a/up/", "", "/a", "../x", "a/../a", "a//f", "./a", "none", "a/f/x", "nul\x00"} {
			f, err := d.Open(name)
			t.add("open "+name, err)
			if err == nil {
				fi, err := f.Stat()
				t.add("stat", fi.Name(), fi.Mode(), err)
				t.add("close", f.Close())
			}
			b, err := fs.ReadFile(d, name)
			t.add("readfile", b, err)
			list, err := fs.ReadDir(d, name)
			t.add("readdir", len(list) > 0, err)
			fi, err := fs.Stat(d, name)
			t.add("stat", fi == nil, err)
			fi, err = fs.Lstat(d, name)
			t.add("lstat", fi == nil, err)
			target, err := fs.ReadLink(d, name)
			t.add("readlink", target, err)
			sub, err := fs.Sub(d, name)
			t.add("sub", err)
			if err == nil {
				b, err := fs.ReadFile(sub, "f")
				t.add("sub's file", b, err)
			}
			var pe *fs.PathError
			if _, err := fs.Stat(d, name); errors.As(err, &pe) {
				t.add("named", pe.Path)
			}
		}
		matches, err := fs.Glob(d, "a/*")
		t.add("glob", fmt.Sprintf("%q", matches), err)
		_, err = sys.DirFS("").Open("x")
		t.add("empty", err != nil)
		_, err = sys.DirFS(dir + "none").Open("x")
		t.add("in nothing", err)
	}},
}

// closed adds what a closed file gives.
func closed(t *trace, f file) {
	_, err := f.Read(make([]byte, 1))
	t.add("closed read", err)
	_, err = f.Write(make([]byte, 1))
	t.add("closed write", err)
	_, err = f.ReadAt(make([]byte, 1), 0)
	t.add("closed readat", err)
	_, err = f.WriteAt(make([]byte, 1), 0)
	t.add("closed writeat", err)
	_, err = f.Seek(0, io.SeekStart)
	t.add("closed seek", err)
	_, err = f.ReadFrom(strings.NewReader("x"))
	t.add("closed readfrom", err)
	_, err = f.WriteTo(io.Discard)
	t.add("closed writeto", err)
	_, err = f.Stat()
	t.add("closed stat", err)
	_, err = f.ReadDir(1)
	t.add("closed readdir", err != nil) // that of os is none to test for
	t.add("closed sync", f.Sync())
	t.add("closed truncate", f.Truncate(0))
	t.add("closed chmod", f.Chmod(0o600))
	t.add("closed chown", f.Chown(-1, -1))
	t.add("closed close", f.Close())
}

// atime is the time of access, in ns.
func atime(fi fs.FileInfo) int64 {
	switch st := fi.Sys().(type) {
	case *syscall.Stat_t:
		return syscall.TimespecToNsec(st.Atim)
	case *fsapi.Stat:
		return st.Atime
	}
	return 0
}

// TestConformanceIsWhole checks that FS and File have every method that the suite has, and that the suite has all
// of theirs which os has: what has none of these is tested by itself.
func TestConformanceIsWhole(t *testing.T) {
	own := []string{"Exists", "ReplaceFile", "ExtractTar", "WriteTar", "Watch"}
	suite := reflect.TypeFor[fileSystem]()
	for m := range reflect.TypeFor[*fsapi.FS]().Methods() {
		if _, ok := suite.MethodByName(m.Name); !ok && !slices.Contains(own, m.Name) {
			t.Errorf("FS.%s is in no test of the suite", m.Name)
		}
	}
	suite = reflect.TypeFor[file]()
	for m := range reflect.TypeFor[*fsapi.File]().Methods() {
		if _, ok := suite.MethodByName(m.Name); !ok {
			t.Errorf("File.%s is in no test of the suite", m.Name)
		}
	}
}
