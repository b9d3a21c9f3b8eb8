//go:build linux && cgo

package container_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/container"
	"golang.org/x/sys/unix"
)

// TestStartFails has the first processes of a sandbox fail, where each of them can. The error says where, and nothing is
// left of them, nor is the program changed.
func TestStartFails(t *testing.T) {
	if os.Geteuid() != 0 {
		const why = "sandboxes need root: run the tests as root"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	const uid = 0x6fff_0000 // below those that the engine gives
	ns, err := container.UserNamespace(uid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("cause")
	fails := func() error { return cause }
	works := func() error { return nil }
	for _, tc := range []struct {
		name, id, root string
		ns             *os.File
		prepare        func() error
		want           error
		text           string
	}{
		{"prepare", "test-prepare", "/mnt", ns, fails, cause, ""},
		{"cgroup", "cgroup.procs", "/mnt", ns, works, unix.ENOTDIR, "create cgroup"}, // which is a file there
		{"user namespace", "test-namespace", "/mnt", null, works, unix.EINVAL, "enter user namespace"},
		{"root", "test-root", "/nestbox-missing", ns, works, unix.ENOENT, "/nestbox-missing: bind"},
		{"new root", "test-new-root", "/", ns, works, unix.EINVAL, "pivot_root"},
	} {
		cfg := config()
		cfg.ID, cfg.Root, cfg.UID = tc.id, tc.root, uid
		pid, err := container.Start(cfg, tc.ns, null, null, tc.prepare)
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: got process %d, %v, want %v with %q", tc.name, pid, err, tc.want, tc.text)
		}
		if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("%s: process %d is left, %v", tc.name, pid, err)
		}
		if err := container.RemoveCgroup(cfg.ID); err != nil && tc.name != "cgroup" {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if now, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); now != dumpable || err != nil {
		t.Errorf("dumpable is %d, %v, and was %d", now, err, dumpable)
	}
}
