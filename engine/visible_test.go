package engine_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

// TestNothingOfTheHost looks from inside for what is the host's.
func TestNothingOfTheHost(t *testing.T) {
	t.Setenv("NESTBOX_TEST_SECRET", "secret-of-the-host") // so not parallel
	dir := stateDir(t)
	eng := open(t, dir)
	source := t.TempDir()
	sb := create(t, eng, engine.CreateOptions{Env: []string{"OWN=1"}, Mounts: []engine.Mount{{Source: source, Target: "/data"}}})
	sh := func(script string) string {
		t.Helper()
		out, err := sb.Command("sh", "-c", script).Output()
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		return string(out)
	}

	t.Run("environment", func(t *testing.T) {
		got := strings.Fields(strings.ReplaceAll(sh("cat /proc/self/environ"), "\x00", "\n"))
		slices.Sort(got)
		want := []string{"HOME=/root", "OWN=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PWD=/root", "USER=root"}
		got = slices.DeleteFunc(got, func(kv string) bool { return strings.HasPrefix(kv, "PWD=") || strings.HasPrefix(kv, "_=") })
		want = slices.DeleteFunc(want, func(kv string) bool { return strings.HasPrefix(kv, "PWD=") })
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		agent, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", agentPID(t, eng, sb.ID())))
		if err != nil || strings.Contains(string(agent), "secret") {
			t.Errorf("the agent's environment: %q, %v", agent, err)
		}
	})

	t.Run("devices", func(t *testing.T) {
		got := sh("cat /sys/block/loop*/loop/* /proc/partitions /proc/self/mountinfo; find /dev")
		if !strings.Contains(got, "disk.img") {
			t.Errorf("got %q, want it to show the disk's loop device, or this tests nothing", got)
		}
		for _, word := range []string{dir, eng.Dir(), "sandboxes", sb.ID(), "/dev/loop"} {
			if strings.Contains(got, word) {
				t.Errorf("devices tell of %q:\n%s", word, got)
			}
		}
	})

	t.Run("mounts", func(t *testing.T) {
		mounts := sh("cat /proc/self/mountinfo /proc/self/mounts /proc/self/mountstats")
		for _, word := range []string{dir, eng.Dir(), "nestbox", sb.ID()} {
			if strings.Contains(mounts, word) {
				t.Errorf("mounts tell of %q:\n%s", word, mounts)
			}
		}
		bind := regexp.MustCompile(`^(/usr|/etc|/data|/dev|/bin|/sbin|/lib[0-9x]*)(/|$)`)
		for line := range strings.Lines(sh("cat /proc/self/mountinfo")) {
			f := strings.Fields(line) // ID, parent, device, root, mount point, see proc_pid_mountinfo(5)
			if root, point := f[3], f[4]; root != "/" && !bind.MatchString(point) && !strings.HasPrefix(point, "/proc") && !strings.HasPrefix(point, "/sys") {
				t.Errorf("a mount of the host's %s at %s", root, point)
			}
		}
	})

	t.Run("processes", func(t *testing.T) {
		pids := strings.Fields(sh("cd /proc; echo [0-9]*"))
		if len(pids) > 3 { // the agent, the shell
			t.Errorf("processes: %v, want the agent and a shell", pids)
		}
	})

	t.Run("descriptors", func(t *testing.T) {
		r, w, err := os.Pipe() // which the sandbox must not get
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		// The shell opens none but that of the directory it lists.
		for line := range strings.Lines(sh(`ls -l /proc/self/fd`)) {
			f := strings.Fields(line)
			if len(f) < 11 {
				continue
			}
			switch fd, target := f[8], f[10]; fd {
			case "0":
				if target != "/dev/null" {
					t.Errorf("standard input is %s", target)
				}
			case "1", "2":
				if !strings.HasPrefix(target, "pipe:") {
					t.Errorf("descriptor %s is %s, want a pipe", fd, target)
				}
			default:
				if !strings.HasPrefix(target, "/proc/") {
					t.Errorf("descriptor %s is %s", fd, target)
				}
			}
		}
	})

	t.Run("agent", func(t *testing.T) {
		for _, name := range []string{"environ", "fd/3", "mem", "exe", "root", "maps", "cwd"} {
			if out, err := sb.Command("sh", "-c", "head -c 1 /proc/1/"+name+" || ls /proc/1/"+name+"/").CombinedOutput(); err == nil {
				t.Errorf("/proc/1/%s can be read: %q", name, out)
			}
		}
		out, err := sb.Command("sh", "-c", "kill -KILL 1; kill -TERM 1; kill -STOP 1; echo ok").Output()
		if err != nil || string(out) != "ok\n" {
			t.Errorf("after signals for the agent: %q, %v", out, err)
		}
		if err := sb.Command("true").Run(); err != nil {
			t.Errorf("command after signals for the agent: %v", err)
		}
	})

	t.Run("ids", func(t *testing.T) {
		if got := sh("id -u; cat /proc/self/uid_map"); !regexp.MustCompile(`^0\n +0 +\d{6,} +65536\n$`).MatchString(got) {
			t.Errorf("got %q, want root of a range of its own", got)
		}
		status := sh("cat /proc/self/status")
		for _, want := range []string{"NoNewPrivs:\t1\n", "Groups:\t \n", "CapInh:\t0000000000000000\n", "CapAmb:\t0000000000000000\n"} {
			if !strings.Contains(status, want) {
				t.Errorf("status lacks %q:\n%s", want, status)
			}
		}
	})

	t.Run("masked", func(t *testing.T) {
		for _, name := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
			if out, err := sb.Command("sh", "-c", "test ! -e "+name+" || test -z \"$(head -c 1 "+name+" | tr -d '\\0')\"").CombinedOutput(); err != nil {
				t.Errorf("%s can be read: %s", name, out)
			}
		}
		for _, name := range []string{"/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/profiling", "/usr/x", "/data/x"} {
			if out, err := sb.Command("sh", "-c", "echo 1 > "+name).CombinedOutput(); err == nil {
				t.Errorf("%s can be written: %s", name, out)
			}
		}
	})

	t.Run("network", func(t *testing.T) {
		var names []string
		for line := range strings.Lines(sh("cat /proc/net/dev")) {
			if name, _, ok := strings.Cut(line, ":"); ok {
				names = append(names, strings.TrimSpace(name))
			}
		}
		if !slices.Equal(names, []string{"lo"}) {
			t.Errorf("network interfaces: %v, want lo alone", names)
		}
	})
}

// TestRangesDiffer checks that two sandboxes have no user id in common.
func TestRangesDiffer(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	seen := map[string]bool{}
	for range 4 {
		sb := create(t, eng, engine.CreateOptions{})
		out, err := sb.Command("cat", "/proc/self/uid_map", "/proc/self/gid_map").Output()
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(out)] {
			t.Errorf("a range is used twice: %s", out)
		}
		seen[string(out)] = true
	}
}
