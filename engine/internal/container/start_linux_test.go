//go:build linux && cgo

package container_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/container"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/configs/validate"
)

// mainVar has this program tell that it came to its main, in the place of running tests.
const mainVar = "NESTBOX_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVar) != "" {
		fmt.Printf("main %q", os.Args[1:])
		return
	}
	os.Exit(m.Run())
}

// A program's own "init" is left alone: libcontainer's comes with a pipe.
func TestHook(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  string
	}{
		{"own init", []string{"init", "-x"}, mainVar + "=1"},
		{"variable that is empty", []string{"init"}, "_LIBCONTAINER_INITPIPE="},
		{"init further on", []string{"app", "init"}, mainVar + "=1"},
		{"no argument", nil, mainVar + "=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", tt.args...)
			cmd.Env = append(os.Environ(), mainVar+"=1", tt.env)
			out, err := cmd.CombinedOutput()
			if want := fmt.Sprintf("main %q", tt.args); err != nil || string(out) != want {
				t.Errorf("program printed %q, %v, want %q", out, err, want)
			}
		})
	}
}

// What Spec says is what libcontainer understands, and finds in order.
func TestSpecIsAccepted(t *testing.T) {
	for _, host := range []bool{false, true} {
		cfg := config()
		cfg.Root, cfg.HostNetwork = t.TempDir(), host
		got, err := container.LibcontainerConfig(cfg, "/proc/self/ns/user")
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Validate(got); err != nil {
			t.Errorf("with HostNetwork %v: %v", host, err)
		}
		for _, typ := range []configs.NamespaceType{configs.NEWNS, configs.NEWPID, configs.NEWIPC, configs.NEWUTS, configs.NEWCGROUP} {
			if !got.Namespaces.IsPrivate(typ) {
				t.Errorf("with HostNetwork %v: namespace %s is not the sandbox's own", host, typ)
			}
		}
		if path := got.Namespaces.PathOf(configs.NEWUSER); path != "/proc/self/ns/user" {
			t.Errorf("with HostNetwork %v: user namespace is %q, want the one given", host, path)
		}
		if private := got.Namespaces.IsPrivate(configs.NEWNET); private == host {
			t.Errorf("with HostNetwork %v: network namespace is the sandbox's own: %v", host, private)
		}
		if !got.NoNewPrivileges || got.Capabilities == nil || len(got.Capabilities.Bounding) != 9 || len(got.Capabilities.Ambient) > 0 {
			t.Errorf("no new privileges %v, capabilities %+v", got.NoNewPrivileges, got.Capabilities)
		}
		if uid, err := got.HostRootUID(); err != nil || uid != int(cfg.UID) {
			t.Errorf("root is the host's %d, %v, want %d", uid, err, cfg.UID)
		}
		r := got.Cgroups.Resources
		if got.Cgroups.Path != "/nestbox/"+cfg.ID || r.CpuQuota != 100_000 || r.CpuPeriod != 100_000 || *r.PidsLimit != 512 || r.Memory != 0 {
			t.Errorf("cgroup is %s with %+v", got.Cgroups.Path, r)
		}
		if rule := r.Devices[0]; rule.Allow || rule.CgroupString() != "a *:* rwm" {
			t.Errorf("first device rule is %q, allow %v, want that all are denied", rule.CgroupString(), rule.Allow)
		}
	}
}

// Labels are passed through; whether the kernel has what they are for CheckLabels tells.
func TestLabels(t *testing.T) {
	cfg := config()
	cfg.AppArmor, cfg.SELinux = "profile", "label"
	got, err := container.LibcontainerConfig(cfg, "/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	if got.AppArmorProfile != "profile" || got.ProcessLabel != "label" {
		t.Errorf("AppArmor profile is %q, SELinux label %q", got.AppArmorProfile, got.ProcessLabel)
	}
	if err := container.CheckLabels("", ""); err != nil {
		t.Errorf("without labels: %v", err)
	}
}

func TestSupported(t *testing.T) {
	if err := container.Supported(); err != nil {
		t.Error(err)
	}
}
