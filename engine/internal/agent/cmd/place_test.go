//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/fsapi"
	"golang.org/x/sys/unix"
)

// nobody has no rights on files but those of everybody.
const nobody = 65534

// placer is an agent without a sandbox, for ExtractTar to one directory.
type placer struct {
	fsapi.Agent // what is not below isn't asked for

	root int
}

func (p placer) MkdirAll(string, uint32) error { return nil }

func (p placer) Open(string, int, uint32) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(p.root), unix.F_DUPFD_CLOEXEC, 3)
	return os.NewFile(uintptr(fd), "root"), err
}

func (p placer) SetAttr(f *os.File, attr fsapi.Attr) error {
	return errnoOrNil(unix.Fchmod(int(f.Fd()), uint32(attr.Mode)))
}

func (p placer) Place(_ *os.File, pl fsapi.Place) (*os.File, error) {
	parent, base := splitLast(pl.Name)
	dir, err := makeBeneath(p.root, parent)
	fd := -1
	if err == nil {
		defer unix.Close(dir)
		fd, err = placeIn(p.root, dir, base, wire.Place{Name: pl.Name, Kind: pl.Kind, Target: pl.Target, Attr: wire.Attr(pl.Attr)})
	}
	switch {
	case errors.Is(err, beneathError{}):
		return nil, fsapi.ErrInsecurePath
	case err != nil || fd < 0:
		return nil, errnoOrNil(err)
	}
	return os.NewFile(uintptr(fd), pl.Name), nil
}

func errnoOrNil(err error) error {
	if err == nil {
		return nil
	}
	return errnoOf(err)
}

// archiveOf makes an archive of lines, each a kind, a name and a target, or content, with "|" between. Those that
// an archive can't have are left out.
func archiveOf(script string) *bytes.Buffer {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	kinds := map[string]byte{"f": tar.TypeReg, "d": tar.TypeDir, "s": tar.TypeSymlink, "h": tar.TypeLink, "p": tar.TypeFifo, "c": tar.TypeChar}
	for line := range strings.SplitSeq(script, "\n") {
		kind, rest, _ := strings.Cut(line, "|")
		name, target, _ := strings.Cut(rest, "|")
		h := tar.Header{Typeflag: kinds[kind], Name: name, Linkname: target, Mode: 0o6755}
		content := ""
		if h.Typeflag == tar.TypeReg {
			h.Linkname, content = "", target
			h.Size = int64(len(content))
		}
		if w.WriteHeader(&h) == nil {
			_, _ = w.Write([]byte(content))
		}
	}
	_ = w.Close()
	return &buf
}

// surroundings is what is in a directory, but for what is below skip, with all that an extraction could change.
func surroundings(t *testing.T, dir, skip string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		if path == skip {
			return fs.SkipDir
		}
		var data []byte
		if fi.Mode().IsRegular() {
			if data, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		if path != dir { // whose times its entry skip changes
			all[path] = fmt.Sprint(fi.Mode(), st.Ino, st.Nlink, st.Uid, st.Mtim, st.Ctim, string(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// FuzzExtract extracts archives of any entries, with what a host's FS and the agent do. Whatever links they have,
// nothing outside of the directory changes, and the error is an *fs.PathError. It is done with nobody's rights, so
// that what it finds does no harm.
func FuzzExtract(f *testing.F) {
	f.Add("d|a\ns|a/b|../c\nf|a/b/d|content\nh|e|a/b\np|a/f")
	f.Fuzz(func(t *testing.T, script string) {
		dir := t.TempDir()
		root, outside := filepath.Join(dir, "root"), filepath.Join(dir, "outside")
		for _, err := range []error{
			os.Mkdir(root, 0o755), os.Mkdir(outside, 0o777), os.WriteFile(filepath.Join(outside, "f"), []byte("outside"), 0o666),
			os.Chmod(outside, 0o777), os.Chmod(filepath.Join(outside, "f"), 0o666), os.Chmod(dir, 0o777),
			os.Symlink("../outside", filepath.Join(root, "up")), os.Symlink(outside, filepath.Join(root, "abs")),
			os.Chown(root, nobody, nobody),
		} {
			if err != nil {
				t.Skip(err) // who isn't root can't give directories away
			}
		}
		before := surroundings(t, dir, root)
		fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		err = asNobody(func() error { return fsapi.New(placer{root: fd}).ExtractTar("dir", archiveOf(script)) })
		var perr *fs.PathError
		if err != nil && !errors.As(err, &perr) {
			t.Errorf("got %v, want an *fs.PathError", err)
		}
		if after := surroundings(t, dir, root); !maps.Equal(after, before) {
			t.Errorf("outside there is %v, there was %v", after, before)
		}
		for name := range surroundings(t, root, "") {
			if fi, err := os.Lstat(name); err != nil || fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeDevice) != 0 {
				t.Errorf("%s: %v, %v", name, fi.Mode(), err)
			}
		}
	})
}

// asNobody calls f with nobody's rights on files, which are the thread's, see setfsuid(2).
func asNobody(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	gid, _ := unix.SetfsgidRetGid(nobody)
	uid, _ := unix.SetfsuidRetUid(nobody)
	defer func() {
		_, _ = unix.SetfsuidRetUid(uid)
		_, _ = unix.SetfsgidRetGid(gid)
	}()
	return f()
}

// FuzzOpenBeneath opens directories by names, with links of any targets on the way, and compares with openat2(2).
func FuzzOpenBeneath(f *testing.F) {
	for _, seed := range [][3]string{
		{"a/b", "", ""}, {"", "", ""}, {".", "", ""}, {"a//./b/", "", ""}, {"x", "", ""}, {"a/x", "", ""}, {"file", "", ""}, {"file/..", "", ""},
		{"..", "", ""}, {"a/..", "", ""}, {"a/../..", "", ""}, {"a/b/../../a", "", ""},
		{"l", "a/b", ""}, {"l/..", "a/b", ""}, {"a/../l/../b", "a/b", ""}, {"l", "..", ""}, {"l", "/", ""}, {"l", "file", ""}, {"l", "x", ""},
		{strings.Repeat("l/../", 40) + "l", "a", ""}, {strings.Repeat("l/../", 39) + "l", "a", ""}, {strings.Repeat("a/../", 900), "", ""},
		{strings.Repeat("./", 2047) + "a", "", ""}, {strings.Repeat("./", 2048), "", ""}, {"l", strings.Repeat("l/", 2047), ""},
		{"l", "l", ""}, {"l", "a/m", "../a/b"}, {"l/b", "a/m", ".."}, {"l", "a/m", "../.."}, {"l/a/m", "a/m/l", "../l/."}, {"a/m", "", "b"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, name, l, m string) {
		dir := t.TempDir()
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "a/b"), 0o755), os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		if os.Symlink(l, filepath.Join(dir, "l")) != nil || os.Symlink(m, filepath.Join(dir, "a/m")) != nil {
			_ = os.Symlink("a", filepath.Join(dir, "a/m")) // a link without a target, or with one that isn't, can't be
		}
		if strings.ContainsRune(name, 0) {
			return
		}
		root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(root)
		got, gotErr := found(openBeneath(root, name))
		how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH}
		want, wantErr := found(unix.Openat2(root, name, how))
		if wantErr == unix.EXDEV {
			wantErr = beneathError{}
		}
		if wantErr == unix.ELOOP && gotErr != wantErr && len(name) > 2*maxLinks {
			return // where the kernel tries a second time, it counts the links of the first as well
		}
		if got != want || gotErr != wantErr {
			t.Errorf("%q, with l to %q and a/m to %q: %v, %v, want %v, %v", name, l, m, got, gotErr, want, wantErr)
		}
	})
}

// found is what a descriptor, which it closes, is of.
func found(fd int, err error) ([2]uint64, error) {
	if err != nil {
		return [2]uint64{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return [2]uint64{st.Dev, st.Ino}, err
}
