package rootfs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/nestbox/nestbox/rootfs"
)

// describe gives the files of a plan by name: a link's target, "dir" or "file".
func describe(list []rootfs.Entry) map[string]string {
	m := map[string]string{}
	for _, e := range list {
		m[e.Name()] = e.Kind()
	}
	return m
}

func TestPlanBase(t *testing.T) {
	outside := files(t, t.TempDir(), map[string]string{"certs/": "", "zone": ""})
	tests := []struct {
		name   string
		host   map[string]string
		have   map[string]string // of the files in the sandbox, these
		lack   []string
		mounts map[string]string // target → source below the host's root
	}{
		{
			name: "merged",
			host: map[string]string{
				"usr/bin/": "", "bin": "-> usr/bin", "sbin": "-> /usr/sbin", "lib": "-> usr/lib", "lib64": "-> usr/lib64",
				"etc/localtime": "-> ../usr/share/zoneinfo/UTC", "etc/shadow": "secret", "etc/alternatives/": "", "root/.ssh/": "",
			},
			have:   map[string]string{"bin": "-> usr/bin", "sbin": "-> /usr/sbin", "lib": "-> usr/lib", "lib64": "-> usr/lib64", "etc/localtime": "-> ../usr/share/zoneinfo/UTC", "etc/alternatives": "dir", "usr": "dir"},
			lack:   []string{"lib32", "etc/shadow", "etc/ssl/certs", "etc/ssl"},
			mounts: map[string]string{"/usr": "usr", "/etc/alternatives": "etc/alternatives"},
		},
		{
			name:   "unmerged",
			host:   map[string]string{"usr/": "", "bin/sh": "", "lib/": "", "lib64": "-> lib", "etc/localtime": "zone"},
			have:   map[string]string{"bin": "dir", "lib": "dir", "lib64": "dir", "etc/localtime": "file"},
			lack:   []string{"sbin"},
			mounts: map[string]string{"/usr": "usr", "/bin": "bin", "/lib": "lib", "/lib64": "lib"},
		},
		{
			name: "links out of /usr",
			host: map[string]string{
				"usr/": "", "etc/ssl/certs": "-> " + outside + "/certs", "etc/localtime": "-> " + outside + "/zone",
				"etc/services": "-> ../usr/../private", "private": "",
			},
			have:   map[string]string{"etc/ssl/certs": "dir", "etc/localtime": "file", "etc/services": "file"},
			mounts: map[string]string{"/usr": "usr", "/etc/ssl/certs": outside + "/certs"},
		},
		{
			name: "what can't be mounted",
			host: map[string]string{
				"usr/": "", "etc/localtime": "-> nowhere", "etc/ld.so.cache": "-> /dev/null", "etc/protocols": "|",
				"etc/pki": "a file", "bin": "-> bin",
			},
			lack:   []string{"etc/localtime", "etc/ld.so.cache", "etc/protocols", "bin"},
			mounts: map[string]string{"/usr": "usr"},
		},
		{
			name:   "nested",
			host:   map[string]string{"usr/": "", "etc/pki/ca-trust/extracted/": ""},
			have:   map[string]string{"etc/pki": "dir", "etc/pki/ca-trust": "dir", "etc/pki/ca-trust/extracted": "dir"},
			mounts: map[string]string{"/usr": "usr", "/etc/pki/ca-trust/extracted": "etc/pki/ca-trust/extracted"},
		},
		{
			name:   "nothing in /etc",
			host:   map[string]string{"usr/": ""},
			have:   map[string]string{"etc/passwd": "file", "home/user": "dir", "tmp": "dir", "proc": "dir"},
			mounts: map[string]string{"/usr": "usr"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := files(t, t.TempDir(), tt.host)
			list, mounts := rootfs.PlanBase(root)
			got := describe(list)
			for name, want := range tt.have {
				if got[name] != want {
					t.Errorf("%s is %q, want %q", name, got[name], want)
				}
			}
			for _, name := range tt.lack {
				if got[name] != "" {
					t.Errorf("%s is %q, want it absent", name, got[name])
				}
			}
			for _, m := range mounts {
				want := tt.mounts[m.Target]
				if !filepath.IsAbs(want) {
					want = filepath.Join(root, want)
				}
				if tt.mounts[m.Target] == "" || m.Source != want || m.Writable {
					t.Errorf("mount %+v, want the source %q, read-only", m, want)
				}
				if err := m.Check(); err != nil {
					t.Error(err)
				}
			}
			if len(mounts) != len(tt.mounts) {
				t.Errorf("%d mounts, want %d", len(mounts), len(tt.mounts))
			}
		})
	}
}

func TestDigest(t *testing.T) {
	a := []rootfs.Entry{rootfs.NewEntry("etc/a", "1"), rootfs.NewEntry("etc/b", "2")}
	if got := rootfs.Digest(a); got != rootfs.Digest(slices.Clone(a)) || len(got) != 16 {
		t.Errorf("digest = %q, then %q, want 16 digits, the same", got, rootfs.Digest(slices.Clone(a)))
	}
	seen := map[string]bool{}
	for _, list := range [][]rootfs.Entry{
		nil, a, a[:1], {a[1], a[0]}, {rootfs.NewEntry("etc/a", "2")}, {rootfs.NewEntry("etc/a1", "")}, {rootfs.NewEntry("etc/a", "1\n\"etc/b\"")},
	} {
		d := rootfs.Digest(list)
		if seen[d] {
			t.Errorf("digest of %v is another's too", list)
		}
		seen[d] = true
	}
}

func TestBaseIsMadeOnce(t *testing.T) {
	needRoot(t)
	umask := syscall.Umask(0o077) // of the process; no test of the package runs in parallel
	defer syscall.Umask(umask)
	base := filepath.Join(t.TempDir(), "base")
	roots := make([]string, 8)
	var wg sync.WaitGroup
	for i := range roots {
		wg.Go(func() {
			tmpl, err := rootfs.NewCatalog(t.TempDir(), base).Lookup(rootfs.Base)
			if err != nil {
				t.Errorf("Lookup: %v", err)
			}
			roots[i] = tmpl.Root
		})
	}
	wg.Wait()
	if len(slices.Compact(roots)) != 1 {
		t.Errorf("roots are %q, want one", roots)
	}
	entries, err := os.ReadDir(base)
	if err != nil || len(entries) != 1 || filepath.Join(base, entries[0].Name()) != roots[0] {
		t.Fatalf("made %v, %v, want %s alone", entries, err, roots[0])
	}
	list, _ := rootfs.PlanBase("/")
	if got := rootfs.Digest(list); got != entries[0].Name() {
		t.Errorf("the skeleton's name is %s, want its digest, %s", entries[0].Name(), got)
	}
	checkSkeleton(t, roots[0], list)
}

// checkSkeleton checks that root holds list and nothing else, with its modes and owners.
func checkSkeleton(t *testing.T, root string, list []rootfs.Entry) {
	t.Helper()
	want := map[string]rootfs.Entry{}
	for _, e := range list {
		want[e.Name()] = e
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, _ := filepath.Rel(root, path)
		e, ok := want[name]
		if !ok {
			t.Errorf("%s is not planned", name)
		}
		delete(want, name)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if e.Mode()&fs.ModeSymlink == 0 && fi.Mode() != e.Mode() {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode(), e.Mode())
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); e.Mode()&fs.ModeSymlink == 0 && (!ok || int(st.Uid) != e.Owner() || int(st.Gid) != e.Owner()) {
			t.Errorf("%s belongs to %d:%d, want %d", name, st.Uid, st.Gid, e.Owner())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for name := range want {
		t.Errorf("%s is missing", name)
	}
}

func TestBaseConfig(t *testing.T) {
	needRoot(t)
	dir := files(t, t.TempDir(), map[string]string{"base/config.json": `{"user": "user"}`})
	tmpl, err := rootfs.NewCatalog(dir, t.TempDir()).Lookup(rootfs.Base)
	if err != nil {
		t.Fatal(err)
	}
	if tmpl.Config.User != "user" || tmpl.Name != rootfs.Base || len(tmpl.Mounts) == 0 {
		t.Errorf("Lookup = %+v, want the built-in template with the user of its config.json", tmpl)
	}
}

func TestOwnBase(t *testing.T) {
	dir := files(t, t.TempDir(), map[string]string{"base/rootfs/": ""})
	tmpl, err := rootfs.NewCatalog(dir, t.TempDir()).Lookup(rootfs.Base)
	if err != nil || tmpl.Root != dir+"/base/rootfs" || len(tmpl.Mounts) > 0 {
		t.Errorf("Lookup = %+v, %v, want the catalog's own template", tmpl, err)
	}
}
