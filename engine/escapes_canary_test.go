package engine_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// canary is what of the host's an attempt must not reach. Whatever of it can be read is the secret, which no attempt
// is told, so that to have reached it is to have printed it.
type canary struct {
	secret string
	dir    string            // has host and shared, and what an action of the host needs
	env    map[string]string // where things are, for the attempt, which is to know all that a real one could guess
	before string            // what dir was like
	victim *os.Process       // a process of the host's
	open   *os.File          // a file that this process has open
	hung   bool              // the host's act did not return
	locked bool              // the host could not lock a file of its own
}

// newCanary makes a canary for one attempt.
func newCanary(t *testing.T, secret string) *canary {
	t.Helper()
	c := &canary{secret: secret, dir: t.TempDir()}
	c.makeFiles(t)
	c.env = map[string]string{
		"PATH":            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"CANARY_DIR":      c.host(),
		"CANARY_FILE":     filepath.Join(c.host(), "secret"),
		"CANARY_LOCK":     filepath.Join(c.dir, "lock"),
		"CANARY_FD":       strconv.Itoa(int(c.open.Fd())),
		"CANARY_KEY":      keyOf(secret),
		"CANARY_ABSTRACT": "nestbox-canary-" + rand.Text(),
		"CANARY_SOCKET":   filepath.Join(c.dir, "agent.sock"),
		"CANARY_SHM":      c.makeShm(t),
		"CANARY_SYSV":     c.makeSysv(t),
		"CANARY_PID":      c.makeVictim(t),
	}
	tcp := c.listen(t, "tcp4", "127.0.0.1:0")
	c.env["CANARY_PORT"] = strconv.Itoa(tcp.(*net.TCPAddr).Port)
	c.listen(t, "unix", "@"+c.env["CANARY_ABSTRACT"])
	c.listen(t, "unix", c.env["CANARY_SOCKET"])
	if err := os.Chmod(c.env["CANARY_SOCKET"], 0o777); err != nil {
		t.Fatal(err)
	}
	c.before = c.snapshot(t)
	return c
}

func (c *canary) host() string   { return filepath.Join(c.dir, "host") }
func (c *canary) shared() string { return filepath.Join(c.dir, "shared") }

// hidden is a directory whose name is the secret, for who lists what it is in, or its mounts.
func (c *canary) hidden() string { return filepath.Join(c.host(), "name-"+c.secret) }

// makeFiles makes files that anybody may read, so that it is the sandbox, and not their mode, that keeps them.
func (c *canary) makeFiles(t *testing.T) {
	t.Helper()
	if err := os.Chmod(filepath.Dir(c.dir), 0o755); err != nil { // which testing makes for its user alone
		t.Fatal(err)
	}
	for _, dir := range []string{c.host(), c.shared(), filepath.Join(c.shared(), "sub"), filepath.Join(c.dir, "elsewhere"), c.hidden()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]string{"host/secret": c.secret + "\n", "elsewhere/secret": c.secret + "\n", "shared/hello": "hello", "lock": ""} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(filepath.Join(c.host(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	c.open = f
	t.Cleanup(func() { _ = f.Close() })
}

// listen serves the secret to whoever connects.
func (c *canary) listen(t *testing.T, network, address string) net.Addr {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(c.secret + "\n"))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-served
	})
	return l.Addr()
}

// makeShm makes a shared memory object as shm_open(3) does, and gives its name.
func (c *canary) makeShm(t *testing.T) string {
	t.Helper()
	name := "nestbox-canary-" + rand.Text()
	path := filepath.Join("/dev/shm", name)
	if err := os.WriteFile(path, []byte(c.secret+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	return name
}

// makeSysv makes a segment of shared memory as shmget(2) does, and gives its key.
func (c *canary) makeSysv(t *testing.T) string {
	t.Helper()
	for range 100 {
		key := int(rand.Text()[0])<<16 | int(rand.Text()[0])<<8 | int(rand.Text()[0])
		id, err := unix.SysvShmGet(key, len(c.secret), unix.IPC_CREAT|unix.IPC_EXCL|0o666)
		if errors.Is(err, syscall.EEXIST) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
		data, err := unix.SysvShmAttach(id, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		copy(data, c.secret)
		if err := unix.SysvShmDetach(data); err != nil {
			t.Fatal(err)
		}
		return strconv.Itoa(key)
	}
	t.Fatal("no key for shared memory is free")
	return ""
}

// makeVictim starts a process for attempts to signal, and gives its number.
func (c *canary) makeVictim(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.victim = cmd.Process
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return strconv.Itoa(cmd.Process.Pid)
}

// environ is the attempt's environment.
func (c *canary) environ() (env []string) {
	for k, v := range c.env {
		env = append(env, k+"="+v)
	}
	return env
}

// snapshot describes the files that are the host's.
func (c *canary) snapshot(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{c.host(), c.shared()} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			hash := fnv.New64a()
			if d.Type().IsRegular() {
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				_, _ = hash.Write(data)
			}
			_, err = fmt.Fprintf(&all, "%s mode %o owner %d:%d links %d content %x\n", path, st.Mode, st.Uid, st.Gid, st.Nlink, hash.Sum64())
			return err
		})
		if err != nil {
			fmt.Fprintf(&all, "%s: %v\n", dir, err)
		}
	}
	return all.String()
}

// reached looks from outside for what an attempt came to: "secret", it was read; "files", they were changed;
// "process", it was stopped or ended; "hang" and "lock", the host's own work was held up.
func (c *canary) reached(t *testing.T, o ending) (all []string) {
	t.Helper()
	if strings.Contains(o.output, c.secret) || strings.Contains(o.host, c.secret) {
		all = append(all, "secret")
	}
	if c.snapshot(t) != c.before {
		all = append(all, "files")
	}
	if !awake(c.victim.Pid) {
		all = append(all, "process")
	}
	if c.hung {
		all = append(all, "hang")
	}
	if c.locked {
		all = append(all, "lock")
	}
	return all
}

// awake tells whether a process runs, and isn't stopped.
func awake(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ") && !strings.Contains(string(stat), ") T ")
}

// keyOf is the description of the key that putKey puts.
func keyOf(secret string) string { return "nestbox-canary-" + secret[:8] }

// putKey puts the secret into the keyring of the host's root until the test's end: a session's keyring is a
// thread's, of which this process has many.
func putKey(t *testing.T, secret string) {
	t.Helper()
	id, err := unix.AddKey("user", keyOf(secret), []byte(secret), unix.KEY_SPEC_USER_KEYRING)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0) })
	if _, err := unix.KeyctlInt(unix.KEYCTL_SET_TIMEOUT, id, 600, 0, 0); err != nil { // if this process is killed
		t.Error(err)
	}
}

// kernelSettings are those by which attempts would have the host's kernel work for them.
var kernelSettings = []string{
	"kernel/core_pattern", "kernel/modprobe", "kernel/hotplug", "kernel/hostname", "kernel/domainname", "kernel/poweroff_cmd",
	"kernel/randomize_va_space", "kernel/sysrq", "kernel/yama/ptrace_scope", "fs/suid_dumpable", "vm/overcommit_memory", "vm/swappiness",
	"net/ipv4/ip_forward",
}

// keepSettings checks at the test's end that the kernel's settings are what they are now.
func keepSettings(t *testing.T) {
	t.Helper()
	get := func() (all []string) {
		for _, name := range kernelSettings {
			data, err := os.ReadFile("/proc/sys/" + name)
			all = append(all, fmt.Sprintf("%s is %q, %v", name, data, err))
		}
		return all
	}
	before := get()
	t.Cleanup(func() {
		if now := get(); !slices.Equal(now, before) {
			t.Errorf("the kernel's settings were %q, and now are %q", before, now)
		}
	})
}
