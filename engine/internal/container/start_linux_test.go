//go:build linux && cgo

package container_test

import (
	"testing"

	"github.com/nestbox/nestbox/engine/internal/container"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/configs/validate"
)

// What Spec says is what libcontainer understands, and finds in order.
func TestSpecIsAccepted(t *testing.T) {
	for _, host := range []bool{false, true} {
		cfg := config()
		cfg.Root, cfg.HostNetwork = t.TempDir(), host
		got, err := container.LibcontainerConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		got.Namespaces.Add(configs.NEWUSER, "/proc/self/ns/user") // which is made before
		got.UIDMappings = []configs.IDMap{{HostID: int64(cfg.UID), Size: container.IDs}}
		got.GIDMappings = got.UIDMappings
		if err := validate.Validate(got); err != nil {
			t.Errorf("with HostNetwork %v: %v", host, err)
		}
		for _, typ := range []configs.NamespaceType{configs.NEWNS, configs.NEWPID, configs.NEWIPC, configs.NEWUTS, configs.NEWCGROUP} {
			if !got.Namespaces.IsPrivate(typ) {
				t.Errorf("with HostNetwork %v: namespace %s is not the sandbox's own", host, typ)
			}
		}
		if private := got.Namespaces.IsPrivate(configs.NEWNET); private == host {
			t.Errorf("with HostNetwork %v: network namespace is the sandbox's own: %v", host, private)
		}
		if !got.NoNewPrivileges || got.Capabilities == nil || len(got.Capabilities.Bounding) != 9 || len(got.Capabilities.Ambient) > 0 {
			t.Errorf("no new privileges %v, capabilities %+v", got.NoNewPrivileges, got.Capabilities)
		}
		r := got.Cgroups.Resources
		if got.Cgroups.Path != "/nestbox/"+cfg.ID || r.CpuQuota != 10_000 || r.CpuPeriod != 10_000 || *r.PidsLimit != 512 || r.Memory != 0 {
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
	got, err := container.LibcontainerConfig(cfg)
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
