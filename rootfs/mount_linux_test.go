package rootfs_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/nestbox/nestbox/rootfs"
	"golang.org/x/sys/unix"
)

// waitVar has this program wait until its standard input ends, in the place of running tests.
const waitVar = "NESTBOX_TEST_WAIT"

// The main thread never ends, so that it would keep the mount namespace of a test that came to run on it.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if os.Getenv(waitVar) != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// rootUID is the host's id of root in the sandboxes of these tests.
const rootUID = 0x7000_0000

// userNamespace makes a user namespace, which a process of ours keeps until the test ends.
func userNamespace(t *testing.T) *os.File {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), waitVar+"=1")
	ids := []syscall.SysProcIDMap{{HostID: rootUID, Size: 1 << 16}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

// mounted mounts a tree in a mount namespace and calls check there. What check fails by is t.Error.
func mounted(t *testing.T, root string, tmpl rootfs.Template, mounts []rootfs.Mount, check func(tree string)) error {
	t.Helper()
	needRoot(t)
	tree, ns := t.TempDir(), userNamespace(t)
	if err := rootfs.MakeTree(tree, rootUID, 0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
		}
		if err == nil {
			_, err = rootfs.MountTree(tree, root, tmpl, mounts, ns, rootUID)
		}
		if err == nil && check != nil {
			check(tree)
		}
		done <- err
	}()
	err := <-done
	host, rerr := os.ReadFile("/proc/self/mountinfo")
	if rerr != nil {
		t.Fatal(rerr)
	}
	if strings.Contains(string(host), tree) || strings.Contains(string(host), root+" ") {
		t.Error("the host sees a mount of the tree")
	}
	return err
}

// asGuest calls f with the rights of the sandbox's root on files, see setfsuid(2).
func asGuest(t *testing.T, path string, f func(*os.Root) error) {
	t.Helper()
	dir, err := os.OpenRoot(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer dir.Close()
	gid, _ := unix.SetfsgidRetGid(rootUID)
	uid, _ := unix.SetfsuidRetUid(rootUID)
	err = f(dir)
	_, _ = unix.SetfsuidRetUid(uid)
	_, _ = unix.SetfsgidRetGid(gid)
	if err != nil {
		t.Error(err)
	}
}

// wantFile checks a file's content.
func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v, want %q", path, got, err, want)
	}
}

// wantOwner checks a file's owner and mode.
func wantOwner(t *testing.T, path string, uid int, mode fs.FileMode) {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != uid || int(st.Gid) != uid || fi.Mode() != mode {
		t.Errorf("%s belongs to %d:%d with mode %v, want %d with %v", path, st.Uid, st.Gid, fi.Mode(), uid, mode)
	}
}

// mountInfo gives the fields of each mount at root or below, as this thread sees them; see proc_pid_mountinfo(5).
func mountInfo(t *testing.T, root string) map[string][]string {
	t.Helper()
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if f[4] == root || strings.HasPrefix(f[4], root+"/") {
			found[strings.TrimPrefix(f[4], root)] = f
		}
	}
	return found
}

func TestMountTreeOverlay(t *testing.T) {
	template := files(t, t.TempDir(), map[string]string{"etc/hello": "template", "etc/gone": "template", "home/user/": ""})
	if err := os.Chown(template+"/home/user", 1000, 1000); err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	root := t.TempDir()
	err := mounted(t, root, rootfs.Template{Root: template}, nil, func(tree string) {
		wantFile(t, root+"/etc/hello", "template")
		wantOwner(t, root+"/etc/hello", rootUID, 0o644)
		wantOwner(t, root+"/home/user", rootUID+1000, fs.ModeDir|0o755)
		for name, err := range map[string]error{
			"write":  os.WriteFile(root+"/etc/hello", []byte("sandbox"), 0o644),
			"make":   os.WriteFile(root+"/new", []byte("sandbox"), 0o644),
			"remove": os.Remove(root + "/etc/gone"),
		} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantFile(t, root+"/etc/hello", "sandbox")
		wantFile(t, tree+"/upper/etc/hello", "sandbox")
		wantFile(t, tree+"/upper/new", "sandbox")
		info := mountInfo(t, root)[""]
		if len(info) == 0 {
			t.Error("the overlay is not mounted")
			return
		}
		if opts := "," + info[5] + ","; !strings.Contains(opts, ",nosuid,") || !strings.Contains(opts, ",nodev,") {
			t.Errorf("overlay's options are %s, want nosuid and nodev", info[5])
		}
		// From the separator on these are the file system's type, source and options.
		if own := strings.Join(info[6:], " "); strings.Contains(own, "=/") || strings.Contains(own, tree) || !strings.Contains(own, "lowerdir=mnt/lower,upperdir=upper,workdir=work") {
			t.Errorf("overlay is %q, want no path of the host's in it", own)
		} else if !strings.Contains(own, "volatile") {
			t.Errorf("overlay is %q, want it volatile", own)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, template+"/etc/hello", "template")
	wantFile(t, template+"/etc/gone", "template")
	if _, err := os.Lstat(template + "/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("template/new: %v, want nothing there", err)
	}
}

func TestMountTreeBinds(t *testing.T) {
	umask := syscall.Umask(0o077)
	defer syscall.Umask(umask)
	template := files(t, t.TempDir(), map[string]string{"etc/old": "template", "link": "-> etc", "abs": "-> /etc"})
	source := files(t, t.TempDir(), map[string]string{"ro/f": "ro", "rw/f": "rw", "file": "file", "link": "-> ro"})
	root := t.TempDir()
	for _, dir := range []string{template, template + "/etc", source + "/ro", source + "/rw"} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mounts := []rootfs.Mount{
		{Source: source + "/ro", Target: "/srv/a/b"},
		{Source: source + "/link", Target: "/by-source-link"},
		{Source: source + "/rw", Target: "/rw", Writable: true},
		{Source: source + "/file", Target: "/new/dir/file"},
		{Source: source + "/file", Target: "/etc/old"},
		{Source: source + "/file", Target: "/link/by-link"},
		{Source: source + "/file", Target: "/abs/by-abs"},
		{Source: source + "/file", Target: "/srv/a/b/f"},
	}
	err := mounted(t, root, rootfs.Template{Root: template}, mounts, func(string) {
		for name, want := range map[string]string{
			"/rw/f": "rw", "/new/dir/file": "file", "/etc/old": "file", "/etc/by-link": "file", "/etc/by-abs": "file", "/srv/a/b/f": "file",
			"/by-source-link/f": "ro",
		} {
			wantFile(t, root+name, want)
		}
		for _, name := range []string{"/srv", "/srv/a", "/new", "/new/dir"} {
			wantOwner(t, root+name, rootUID, fs.ModeDir|0o755)
		}
		wantOwner(t, root+"/rw", rootUID, fs.ModeDir|0o755) // the host's root
		if err := os.WriteFile(root+"/srv/a/b/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("write in a read-only mount: %v, want EROFS", err)
		}
		asGuest(t, root+"/rw", func(dir *os.Root) error { return dir.WriteFile("new", []byte("guest"), 0o644) })
		info := mountInfo(t, root)
		if len(info) != len(mounts)+1 {
			t.Errorf("%d mounts, want %d", len(info), len(mounts)+1)
		}
		for target, f := range info {
			opts := "," + f[5] + ","
			if !strings.Contains(opts, ",nosuid,") || !strings.Contains(opts, ",nodev,") || strings.Contains(opts, ",ro,") != (target != "" && target != "/rw") {
				t.Errorf("options of %q are %s", target, f[5])
			}
			if f[6] != "-" && target != "" { // an optional field tells of a peer group
				t.Errorf("%q is %s, want it private", target, f[6])
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, source+"/rw/new", "guest")
	wantOwner(t, source+"/rw/new", 0, 0o600)
	wantFile(t, template+"/etc/old", "template")
}

// The root file system hides what is below its mount point, where sources and template may be.
func TestMountTreeBelowMountPoint(t *testing.T) {
	root := files(t, t.TempDir(), map[string]string{"template/data/f": "template", "data/f": "host", "usr/f": "usr"})
	tmpl := rootfs.Template{Root: root + "/template", Mounts: []rootfs.Mount{{Source: root + "/usr", Target: "/usr"}}}
	err := mounted(t, root, tmpl, []rootfs.Mount{{Source: root + "/data", Target: "/mine"}}, func(string) {
		wantFile(t, root+"/mine/f", "host")
		wantFile(t, root+"/usr/f", "usr")
		wantFile(t, root+"/data/f", "template")
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMountTreeRelativeTemplate(t *testing.T) {
	t.Chdir(files(t, t.TempDir(), map[string]string{"templates/x/rootfs/f": "template"}))
	tmpl, err := rootfs.NewCatalog("templates", t.TempDir()).Lookup("x")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := mounted(t, root, tmpl, nil, func(string) { wantFile(t, root+"/f", "template") }); err != nil {
		t.Fatal(err)
	}
}

func TestMountTreeRefuses(t *testing.T) {
	source := files(t, t.TempDir(), map[string]string{"d/": "", "f": ""})
	template := files(t, t.TempDir(), map[string]string{"f": "", "d/": "", "dangling": "-> nowhere", "loop": "-> loop"})
	tests := []struct {
		name string
		m    rootfs.Mount
		want error
	}{
		{"directory on a file", rootfs.Mount{Source: source + "/d", Target: "/f"}, unix.ENOTDIR},
		{"file on a directory", rootfs.Mount{Source: source + "/f", Target: "/d"}, unix.EISDIR},
		{"below a file", rootfs.Mount{Source: source + "/f", Target: "/f/x"}, unix.ENOTDIR},
		{"dangling link", rootfs.Mount{Source: source + "/d", Target: "/dangling/x"}, unix.EEXIST},
		{"link to itself", rootfs.Mount{Source: source + "/d", Target: "/loop"}, unix.ELOOP},
	}
	before := openFiles(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := mounted(t, t.TempDir(), rootfs.Template{Root: template}, []rootfs.Mount{tt.m}, nil)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.m.Source) {
				t.Errorf("MountTree: %v, want %v of %s", err, tt.want, tt.m.Source)
			}
		})
	}
	if n := openFiles(t); n != before {
		t.Errorf("%d descriptors are open, %d were", n, before)
	}
	t.Run("bad mount", func(t *testing.T) {
		err := mounted(t, t.TempDir(), rootfs.Template{Root: template}, []rootfs.Mount{{Source: source, Target: "/proc/1"}}, nil)
		var merr *rootfs.MountError
		if !errors.As(err, &merr) {
			t.Errorf("MountTree: %v, want a *MountError", err)
		}
	})
}

func TestOpenTarget(t *testing.T) {
	outside := t.TempDir()
	base := t.TempDir()
	root := files(t, base, map[string]string{
		"root/own/f":      "",
		"root/abs":        "-> " + outside,
		"root/up":         "-> ../../../../../../../.." + outside,
		"root/own/up":     "-> ../../sibling",
		"root/chain":      "-> abs",
		"root/in":         "-> /own",
		"root/top":        "-> ../..",
		"root/f":          "-> /own/f",
		"sibling/":        "",
		"root/proc/self/": "",
	}) + "/root"
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	tests := []struct {
		target string
		dir    bool
		want   string // below the root; empty: an error
	}{
		{"/own", true, "/own"},
		{"/new/a/b", true, "/new/a/b"},
		{"/new/a/file", false, "/new/a/file"},
		{"/in", true, "/own"},
		{"/in/new", false, "/own/new"},
		{"/f", false, "/own/f"},
		{"/top/made", true, "/made"},
		{"/abs", true, ""},
		{"/abs/x", true, ""},
		{"/up/x", false, ""},
		{"/chain/x", true, ""},
		{"/own/up/x", true, ""},
		{"/in/up", true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			target, err := rootfs.OpenTarget(fd, tt.target, tt.dir, os.Getuid())
			if err != nil {
				if tt.want != "" {
					t.Errorf("openTarget: %v, want %s", err, tt.want)
				}
				return
			}
			defer unix.Close(target)
			got, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", target))
			if err != nil || tt.want == "" || got != root+tt.want {
				t.Errorf("openTarget = %s, %v, want %q", got, err, tt.want)
			}
		})
	}
	for _, dir := range []string{outside, base + "/sibling"} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("made outside of the root: %v, %v", entries, err)
		}
	}
}

// A magic link leads where no name does; see RESOLVE_NO_MAGICLINKS in openat2(2).
func TestOpenTargetMagicLink(t *testing.T) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if target, err := rootfs.OpenTarget(fd, "/proc/self/root/tmp", true, os.Getuid()); err == nil {
		_ = unix.Close(target)
		t.Error("openTarget followed a magic link")
	}
}

func TestMountPoint(t *testing.T) {
	for _, dir := range []string{"/var/lib/nestbox", "/mnt", "/mnt/x", "/tmp/x", "/var/tmp/x/y", "/home/u"} {
		point, err := rootfs.MountPoint(dir)
		if err != nil {
			t.Error(err)
			continue
		}
		if rel, err := filepath.Rel(point, dir); err != nil || rel != ".." && !strings.HasPrefix(rel, "../") {
			t.Errorf("MountPoint(%s) = %s, which hides it", dir, point)
		}
		if fi, err := os.Lstat(point); err != nil || !fi.IsDir() {
			t.Errorf("MountPoint(%s) = %s: %v, %v, want a directory", dir, point, fi, err)
		}
	}
}

// openFiles counts the descriptors of this process.
func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
