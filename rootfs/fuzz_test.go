package rootfs_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/rootfs"
)

// FuzzTemplateName checks that a name leads to one directory of the catalog, or to the path that it is, and that
// the error is one of two otherwise.
func FuzzTemplateName(f *testing.F) {
	dir := files(f, f.TempDir(), map[string]string{"c/plain/rootfs/": "", "c/x/y/rootfs/": "", "c/a b/rootfs/": "", "c/rootfs/": "", "rootfs/": ""}) + "/c"
	c := rootfs.NewCatalog(dir, f.TempDir())
	f.Add("plain")
	f.Fuzz(func(t *testing.T, name string) {
		got, err := c.Lookup(name)
		var terr *rootfs.TemplateError
		switch {
		case err != nil && !errors.Is(err, rootfs.ErrTemplateNotFound) && !errors.As(err, &terr):
			t.Errorf("Lookup: %v, want ErrTemplateNotFound or a *TemplateError", err)
		case err != nil || name == rootfs.Base:
		case got.Name != name:
			t.Errorf("Lookup(%q) names it %q", name, got.Name)
		case filepath.IsAbs(name) && got.Root != filepath.Clean(name), !filepath.IsAbs(name) && filepath.Dir(filepath.Dir(got.Root)) != dir:
			t.Errorf("Lookup(%q) leads to %s", name, got.Root)
		}
	})
}

// FuzzConfig checks that what is taken of a config.json can be used, and is the same when it is written again.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"user": "1000:1000", "env": ["A=1", "B="], "dir": "/work"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, fault := rootfs.ParseConfig(data)
		if fault != "" {
			if c.User != "" || c.Dir != "" || c.Env != nil {
				t.Errorf("%+v of what is at fault: %s", c, fault)
			}
			return
		}
		if c.Dir != "" && (c.Dir[0] != '/' || len(c.Dir) > 4095) || len(c.User) > 256 || strings.ContainsAny(c.User+c.Dir, "\x00") {
			t.Errorf("takes the user %q and the directory %q", c.User, c.Dir)
		}
		for _, kv := range c.Env {
			if key, _, ok := strings.Cut(kv, "="); !ok || key == "" || strings.Contains(kv, "\x00") {
				t.Errorf("takes the variable %q", kv)
			}
		}
		written, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, fault := rootfs.ParseConfig(written)
		if fault != "" || again.User != c.User || again.Dir != c.Dir || !slices.Equal(again.Env, c.Env) {
			t.Errorf("read %+v, and from that %+v, %s", c, again, fault)
		}
	})
}

// FuzzMount checks that what is taken for a mount is, inside, what its target says and none of the sandbox's own,
// and that the error is a *MountError otherwise.
func FuzzMount(f *testing.F) {
	dir := files(f, f.TempDir(), map[string]string{"d/": "", "file": "", "pipe": "|", "link": "-> d"})
	f.Add("/d", "/data")
	f.Fuzz(func(t *testing.T, source, target string) {
		m := rootfs.Mount{Source: dir + source, Target: target}
		if err := m.Check(); err != nil {
			var merr *rootfs.MountError
			if !errors.As(err, &merr) || merr.Mount != m || merr.Reason == "" {
				t.Errorf("Check: %v, want a *MountError with a reason", err)
			}
			if len(err.Error()) > 4096 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if fi, err := os.Stat(m.Source); err != nil || !fi.IsDir() && !fi.Mode().IsRegular() {
			t.Errorf("takes the source %q: %v", m.Source, err)
		}
		elems := strings.Split(target, "/")
		if elems[0] != "" || len(elems) < 2 || len(target) > 4095 || strings.Contains(target, "\x00") {
			t.Fatalf("takes the target %q", target)
		}
		for _, elem := range elems[1:] {
			if elem == "" || elem == "." || elem == ".." || len(elem) > 255 {
				t.Errorf("takes the target %q with the element %q", target, elem)
			}
		}
		if slices.Contains([]string{"proc", "sys", "dev"}, elems[1]) {
			t.Errorf("takes the target %q", target)
		}
	})
}
