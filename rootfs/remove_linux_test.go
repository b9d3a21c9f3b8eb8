package rootfs_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/nestbox/nestbox/rootfs"
	"golang.org/x/sys/unix"
)

// deep makes a directory in dir with depth more below it, each with width directories and files beside it. No
// path leads that deep; see PATH_MAX in path_resolution(7).
func deep(t testing.TB, dir string, depth, width int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(at) }()
	for range depth {
		for i := range width {
			name := strconv.Itoa(i)
			if err := errors.Join(unix.Mkdirat(at, "dir"+name, 0o755), unix.Mknodat(at, "file"+name, unix.S_IFREG, 0)); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mkdirat(at, "d", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(at)
		at = next
	}
}

// wantGone checks that there is nothing at path.
func wantGone(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v, want it gone", path, err)
	}
}

func TestRemoveTree(t *testing.T) {
	outside := files(t, t.TempDir(), map[string]string{"dir/precious": "data", "file": "data"})
	chmod := func(t *testing.T, mode fs.FileMode, paths ...string) {
		for _, path := range paths {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name string
		root bool // needs it
		fill func(t *testing.T, dir string)
	}{
		{name: "nothing", fill: func(t *testing.T, dir string) { chmod(t, 0o700, dir); _ = os.Remove(dir) }},
		{name: "empty", fill: func(*testing.T, string) {}},
		{name: "a file", fill: func(t *testing.T, dir string) {
			if err := errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o000)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a link", fill: func(t *testing.T, dir string) {
			if err := errors.Join(os.Remove(dir), os.Symlink(outside+"/dir", dir)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "links", fill: func(t *testing.T, dir string) {
			files(t, dir, map[string]string{
				"a": "-> " + outside + "/dir", "b/c": "-> " + outside + "/file", "b/up": "-> ..", "loop": "-> loop", "b/abs": "-> /",
			})
			if err := os.Link(outside+"/file", dir+"/hard"); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "special files", fill: func(t *testing.T, dir string) {
			files(t, dir, map[string]string{"pipe": "|", "a/pipe": "|", "a/ \n\xff*": "", "-rf": "", "a/\\": ""})
		}},
		{name: "depth 3000", fill: func(t *testing.T, dir string) { deep(t, dir, 3000, 0) }},
		{name: "deep and wide", fill: func(t *testing.T, dir string) { deep(t, dir, 300, 3) }},
		{name: "20000 files", fill: func(t *testing.T, dir string) {
			for i := range 20_000 {
				if err := unix.Mknod(filepath.Join(dir, strconv.Itoa(i)), unix.S_IFREG|0o644, 0); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{name: "mode 000", root: true, fill: func(t *testing.T, dir string) {
			files(t, dir, map[string]string{"work/work/": "", "upper/a/b/f": "", "upper/c/": ""})
			chmod(t, 0o000, dir+"/upper/a/b/f", dir+"/upper/a/b", dir+"/upper/a", dir+"/upper/c", dir+"/work/work", dir)
		}},
		{name: "a device", root: true, fill: func(t *testing.T, dir string) {
			if err := unix.Mknod(dir+"/whiteout", unix.S_IFCHR, 0); err != nil {
				t.Fatal(err)
			}
		}},
	}
	before := openFiles(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root {
				needRoot(t)
			}
			parent := files(t, t.TempDir(), map[string]string{"tree/": "", "sibling": "data"})
			tt.fill(t, parent+"/tree")
			if err := rootfs.RemoveTree(t.Context(), parent+"/tree"); err != nil {
				t.Error(err)
			}
			wantGone(t, parent+"/tree")
			wantFile(t, parent+"/sibling", "data")
		})
	}
	wantFile(t, outside+"/dir/precious", "data")
	wantFile(t, outside+"/file", "data")
	if n := openFiles(t); n != before {
		t.Errorf("%d descriptors are open, %d were", n, before)
	}
}

// However deep a tree is, a sweep must not use up the descriptors of the program that it is part of.
func TestRemoveTreeDescriptors(t *testing.T) {
	dir := t.TempDir() + "/tree"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	deep(t, dir, 300, 0)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 128, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	err := rootfs.RemoveTree(t.Context(), dir)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Error(err)
	}
	wantGone(t, dir)
}

func TestRemoveTreeNames(t *testing.T) {
	dir := files(t, t.TempDir(), map[string]string{"a/f": "", "b/f": ""})
	t.Chdir(dir)
	for _, name := range []string{"a", dir + "/b/", "none", "none/below", dir + "/none/below/"} {
		if err := rootfs.RemoveTree(t.Context(), name); err != nil {
			t.Errorf("RemoveTree(%s): %v", name, err)
		}
		wantGone(t, name)
	}
}

// Two hosts' sweepers may come to the same tree.
func TestRemoveTreeByTwo(t *testing.T) {
	for range 10 {
		dir := t.TempDir() + "/tree"
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		deep(t, dir, 150, 1)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if err := rootfs.RemoveTree(t.Context(), dir); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		wantGone(t, dir)
	}
}

func TestRemoveTreeCancelled(t *testing.T) {
	dir := files(t, t.TempDir(), map[string]string{"tree/a/f": ""}) + "/tree"
	cause := errors.New("out of time")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	err := rootfs.RemoveTree(ctx, dir)
	var perr *fs.PathError
	if !errors.Is(err, cause) || !errors.As(err, &perr) || perr.Path != dir {
		t.Errorf("RemoveTree: %v, want %v as *fs.PathError of %s", err, cause, dir)
	}
	wantFile(t, dir+"/a/f", "")
	if err := rootfs.RemoveTree(t.Context(), dir); err != nil {
		t.Error(err)
	}
	wantGone(t, dir)
}

// doneAfter is a context that is done when it was asked so often whether it is.
type doneAfter struct {
	context.Context
	left int
}

func (c *doneAfter) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestRemoveDisk stops while a disk is removed that has much, and then goes on.
func TestRemoveDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	disk := scattered(t, dir)
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if err := rootfs.RemoveTree(&doneAfter{t.Context(), 3}, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(disk.Name(), &st); err != nil || st.Blocks == 0 || st.Blocks*512 >= scatteredPages*4096 {
		t.Errorf("after a part: %v, %d bytes left, want some of %d", err, st.Blocks*512, scatteredPages*4096)
	}
	if err := rootfs.RemoveTree(t.Context(), dir); err != nil {
		t.Error(err)
	}
	wantGone(t, dir)
}

// TestRemoveDiskInUse leaves a disk as it is for who has it open.
func TestRemoveDiskInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	disk := scattered(t, dir)
	defer disk.Close()
	if err := rootfs.RemoveTree(t.Context(), dir); err != nil {
		t.Error(err)
	}
	wantGone(t, dir)
	got := make([]byte, 4096)
	for n := range int64(scatteredPages) {
		if _, err := disk.ReadAt(got, n*8192); err != nil || got[0] != 'x' {
			t.Fatalf("page %d: %v, %q, want it as it was", n, err, got[0])
		}
	}
}

const scatteredPages = 4096

// scattered makes a directory with a disk that has 16 MiB, with a hole between any two pages.
func scattered(t *testing.T, dir string) *os.File {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte("x"), 4096)
	for n := range int64(scatteredPages) {
		if _, err := f.WriteAt(page, n*8192); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return f
}
