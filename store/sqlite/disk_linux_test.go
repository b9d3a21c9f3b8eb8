package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nestbox/nestbox/store"
	"github.com/nestbox/nestbox/store/sqlite"
)

func init() {
	helpers["small disk"] = func(args []string) error { return inTmpfs(args[0], fillUp) }
	helpers["read-only"] = func(args []string) error { return inTmpfs(args[0], readOnly) }
}

// TestDisk runs in mount namespaces of its own.
func TestDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		const why = "mounting a small disk needs root: run the tests as root"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	for _, name := range []string{"small disk", "read-only"} {
		p := helper(t, name, t.TempDir())
		p.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if err := p.start(t).Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// inTmpfs mounts a small disk on dir, for this process.
func inTmpfs(dir string, f func(dir string) error) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return f(dir)
}

// fillUp adds records until the disk is full.
func fillUp(dir string) error {
	ctx := context.Background()
	s, err := sqlite.Open(filepath.Join(dir, "store.db"))
	if err != nil {
		return err
	}
	n := 0
	for err == nil {
		if err = s.Add(ctx, store.Record{ID: fmt.Sprint(n), Metadata: map[string]string{"k": strings.Repeat("v", 1000)}}); err == nil {
			n++
		}
	}
	if n == 0 || errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "full") {
		return fmt.Errorf("after %d records: %v; want that the disk is full", n, err)
	}
	if _, err := sqlite.Open(filepath.Join(dir, "another.db")); err == nil {
		return errors.New("a second store found room")
	}
	for range 2 { // as it is, and opened again
		if list, err := s.List(ctx, store.Filter{}); err != nil || len(list) != n {
			return fmt.Errorf("%d records, %v; want %d", len(list), err, n)
		}
		if err := s.Close(); err != nil {
			return err
		}
		if s, err = sqlite.Open(filepath.Join(dir, "store.db")); err != nil {
			return err
		}
	}
	return s.Close()
}

// readOnly opens a store where nothing can be written.
func readOnly(dir string) error {
	ctx := context.Background()
	s, err := sqlite.Open(filepath.Join(dir, "store.db"))
	if err != nil {
		return err
	}
	if err := errors.Join(s.Add(ctx, store.Record{ID: "a"}), s.Close()); err != nil {
		return err
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	for _, name := range []string{"store.db", "another.db"} {
		if _, err := sqlite.Open(filepath.Join(dir, name)); !errors.Is(err, syscall.EROFS) {
			return fmt.Errorf("open %s: %v, want EROFS", name, err)
		}
	}
	return nil
}
