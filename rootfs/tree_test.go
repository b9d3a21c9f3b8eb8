package rootfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/rootfs"
)

func TestMountCheck(t *testing.T) {
	dir := files(t, t.TempDir(), map[string]string{
		"file":     "",
		"d/":       "",
		"pipe":     "|",
		"link":     "-> d",
		"dangling": "-> nowhere",
	})
	tests := []struct {
		name           string
		source, target string
		want           string // in the reason; empty: fine
	}{
		{"directory", dir + "/d", "/data", ""},
		{"file", dir + "/file", "/etc/app/config", ""},
		{"link", dir + "/link", "/data", ""},
		{"like /proc", dir + "/d", "/process", ""},
		{"below another's /dev", dir + "/d", "/srv/dev", ""},
		{"relative source", "d", "/data", "source must be an absolute path"},
		{"no source", "", "/data", "source must be an absolute path"},
		{"missing source", dir + "/none", "/data", "no such source"},
		{"dangling source", dir + "/dangling", "/data", "no such source"},
		{"source below a file", dir + "/file/x", "/data", "not a directory"},
		{"pipe", dir + "/pipe", "/data", "neither a directory nor a file"},
		{"device", os.DevNull, "/data", "neither a directory nor a file"},
		{"relative target", dir + "/d", "data", "target must be an absolute path"},
		{"no target", dir + "/d", "", "target must be an absolute path"},
		{"root", dir + "/d", "/", "not /"},
		{"target with ..", dir + "/d", "/data/../../etc", "without . or .."},
		{"target with .", dir + "/d", "/./data", "without . or .."},
		{"target with a slash more", dir + "/d", "/data/", "target must be"},
		{"/proc", dir + "/d", "/proc", "in /proc"},
		{"below /proc", dir + "/file", "/proc/1/mem", "in /proc"},
		{"/sys", dir + "/d", "/sys/fs", "in /sys"},
		{"/dev", dir + "/file", "/dev/null", "in /dev"},
		{"NUL in the source", dir + "/d\x00", "/data", "NUL"},
		{"NUL in the target", dir + "/d", "/data\x00", "NUL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := rootfs.Mount{Source: tt.source, Target: tt.target}
			err := m.Check()
			if tt.want == "" {
				if err != nil {
					t.Errorf("Check() = %v", err)
				}
				return
			}
			var merr *rootfs.MountError
			if !errors.As(err, &merr) || merr.Mount != m || !strings.Contains(merr.Reason, tt.want) {
				t.Errorf("Check() = %v, want a *MountError with %q", err, tt.want)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	dir := files(t, t.TempDir(), map[string]string{"a/": "", "b": ""})
	a := rootfs.Mount{Source: dir + "/a", Target: "/data"}
	b := rootfs.Mount{Source: dir + "/b", Target: "/data/b", Writable: true}
	lower := rootfs.PlannedMount{Source: "/template", Target: "mnt/lower", Lower: true}
	pa := rootfs.PlannedMount{Source: dir + "/a", Target: "/data"}
	pb := rootfs.PlannedMount{Source: dir + "/b", Target: "/data/b", Writable: true}
	tests := []struct {
		name         string
		own, options []rootfs.Mount
		want         []rootfs.PlannedMount // nil: an error
	}{
		{"template alone", nil, nil, []rootfs.PlannedMount{lower}},
		{"template's mounts first", []rootfs.Mount{a}, []rootfs.Mount{b}, []rootfs.PlannedMount{lower, pa, pb}},
		{"in the given order", nil, []rootfs.Mount{b, a}, []rootfs.PlannedMount{lower, pb, pa}},
		{"bad mount of the template", []rootfs.Mount{{Source: dir + "/none", Target: "/x"}}, []rootfs.Mount{a}, nil},
		{"bad mount of the options", []rootfs.Mount{a}, []rootfs.Mount{{Source: dir, Target: "/dev/shm"}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := rootfs.Plan(rootfs.Template{Root: "/template", Mounts: tt.own}, tt.options)
			var merr *rootfs.MountError
			if tt.want == nil && !errors.As(err, &merr) {
				t.Errorf("plan = %+v, %v, want a *MountError", got, err)
			}
			if !slices.Equal(got, tt.want) || tt.want != nil && err != nil {
				t.Errorf("plan = %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestMakeTree(t *testing.T) {
	dir, uid := t.TempDir(), uint32(os.Getuid())
	if err := rootfs.MakeTree(dir, uid, 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"upper", "work", "mnt"} {
		if fi, err := os.Lstat(filepath.Join(dir, name)); err != nil || !fi.IsDir() {
			t.Errorf("%s: %v, %v, want a directory", name, fi, err)
		}
	}
	if err := rootfs.MakeTree(dir, uid, 0); !errors.Is(err, os.ErrExist) {
		t.Errorf("MakeTree where one is: %v, want os.ErrExist", err)
	}
}
