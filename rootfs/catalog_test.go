package rootfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nestbox/nestbox/rootfs"
)

// needRoot skips a test that needs root where there is none.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		const why = "owners and mounts need root: run the tests as root"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
}

// files makes a directory of files by their names. A name that ends in a slash is a directory, content that
// begins with "-> " a link, and "|" a named pipe.
func files(t testing.TB, dir string, content map[string]string) string {
	t.Helper()
	for name, data := range content {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		target, link := strings.CutPrefix(data, "-> ")
		switch {
		case err != nil:
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case link:
			err = os.Symlink(target, path)
		case data == "|":
			err = syscall.Mkfifo(path, 0o644)
		default:
			err = os.WriteFile(path, []byte(data), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestNames(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"empty", nil, []string{"base"}},
		{"sorted", map[string]string{"go/rootfs/": "", "alpine/rootfs/": "", "base-2/rootfs/": ""}, []string{"alpine", "base", "base-2", "go"}},
		{"own base", map[string]string{"base/rootfs/": "", "a/rootfs/": ""}, []string{"a", "base"}},
		{"base of a file", map[string]string{"base": ""}, []string{"base"}},
		{"none of them a template", map[string]string{
			"file":            "",
			"empty/":          "",
			".hidden/rootfs/": "",
			"a b/rootfs/":     "",
			"file2/rootfs":    "",
			"dangling/rootfs": "-> nowhere",
		}, []string{"base"}},
		{"link", map[string]string{"a/rootfs": "-> ../.store/a", ".store/a/": ""}, []string{"a", "base"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := rootfs.NewCatalog(files(t, t.TempDir(), tt.files), t.TempDir())
			got, err := c.Names()
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("Names() = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	t.Run("missing directory", func(t *testing.T) {
		got, err := rootfs.NewCatalog(filepath.Join(t.TempDir(), "none"), t.TempDir()).Names()
		if err != nil || !slices.Equal(got, []string{"base"}) {
			t.Errorf("Names() = %q, %v, want base alone", got, err)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		dir := files(t, t.TempDir(), map[string]string{"f": ""})
		if got, err := rootfs.NewCatalog(filepath.Join(dir, "f"), t.TempDir()).Names(); err == nil {
			t.Errorf("Names() = %q, want an error", got)
		}
	})
}

func TestLookup(t *testing.T) {
	dir := files(t, t.TempDir(), map[string]string{
		"plain/rootfs/etc/":       "",
		"full/rootfs/":            "",
		"full/config.json":        `{"user": "1000:1000", "env": ["A=1", "B="], "dir": "/work"}`,
		"linked/rootfs":           "-> ../plain/rootfs",
		"dangling/rootfs":         "-> ../nowhere",
		"Mixed_1.2-x/rootfs/":     "",
		"config-only/config.json": `{}`,
	})
	c := rootfs.NewCatalog(dir, t.TempDir())
	tests := []struct {
		name   string
		root   string
		config rootfs.Config
	}{
		{name: "plain", root: dir + "/plain/rootfs"},
		{name: "full", root: dir + "/full/rootfs", config: rootfs.Config{User: "1000:1000", Env: []string{"A=1", "B="}, Dir: "/work"}},
		{name: "linked", root: dir + "/linked/rootfs"},
		{name: "Mixed_1.2-x", root: dir + "/Mixed_1.2-x/rootfs"},
		{name: dir + "/plain/rootfs", root: dir + "/plain/rootfs"},
		{name: dir + "/plain/../full/rootfs/", root: dir + "/full/rootfs"}, // beside it is a config.json, which is the catalog's
	}
	for _, tt := range tests {
		t.Run(filepath.Base(tt.name), func(t *testing.T) {
			got, err := c.Lookup(tt.name)
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != tt.name || got.Root != tt.root || len(got.Mounts) > 0 {
				t.Errorf("Lookup(%q) = %+v, want the root %s", tt.name, got, tt.root)
			}
			if got.Config.User != tt.config.User || got.Config.Dir != tt.config.Dir || !slices.Equal(got.Config.Env, tt.config.Env) {
				t.Errorf("Lookup(%q).Config = %+v, want %+v", tt.name, got.Config, tt.config)
			}
		})
	}
	for _, name := range []string{
		"unknown", "dangling", "config-only", dir + "/unknown",
		"", ".", "..", ".hidden", "plain/rootfs", "../plain", "a b", "plain\n", "plain\x00", "é", strings.Repeat("a", 129),
	} {
		if got, err := c.Lookup(name); !errors.Is(err, rootfs.ErrTemplateNotFound) {
			t.Errorf("Lookup(%.20q) = %+v, %v, want ErrTemplateNotFound", name, got, err)
		}
	}
}

func TestLookupRefuses(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string // of a template "x"
		path  string            // the file at fault
		want  string            // in the reason
	}{
		{"file for a template", map[string]string{"x": ""}, "x/config.json", "not a directory"},
		{"file for a root", map[string]string{"x/rootfs": ""}, "x/rootfs", "is no directory"},
		{"proc is a link", map[string]string{"x/rootfs/proc": "-> /proc"}, "x/rootfs/proc", "is a symbolic link"},
		{"sys is a link", map[string]string{"x/rootfs/sys": "-> usr", "x/rootfs/usr/": ""}, "x/rootfs/sys", "is a symbolic link"},
		{"dev is a dangling link", map[string]string{"x/rootfs/dev": "-> nowhere"}, "x/rootfs/dev", "is a symbolic link"},
		{"dev is a file", map[string]string{"x/rootfs/dev": ""}, "x/rootfs/dev", "is a file"},
		{"proc is a pipe", map[string]string{"x/rootfs/proc": "|"}, "x/rootfs/proc", "is a special file"},
		{"config is a directory", map[string]string{"x/rootfs/": "", "x/config.json/": ""}, "x/config.json", "is a directory"},
		{"config is empty", map[string]string{"x/rootfs/": "", "x/config.json": ""}, "x/config.json", "EOF"},
		{"config is no JSON", map[string]string{"x/rootfs/": "", "x/config.json": "user: root"}, "x/config.json", "invalid character"},
		{"config of another type", map[string]string{"x/rootfs/": "", "x/config.json": `{"env": "A=1"}`}, "x/config.json", "cannot unmarshal"},
		{"config with an unknown field", map[string]string{"x/rootfs/": "", "x/config.json": `{"usr": "root"}`}, "x/config.json", `unknown field "usr"`},
		{"config with more after it", map[string]string{"x/rootfs/": "", "x/config.json": `{} {"user": "root"}`}, "x/config.json", "after the object"},
		{"relative dir", map[string]string{"x/rootfs/": "", "x/config.json": `{"dir": "work"}`}, "x/config.json", "absolute path"},
		{"dir with NUL", map[string]string{"x/rootfs/": "", "x/config.json": `{"dir": "/a\u0000b"}`}, "x/config.json", "absolute path"},
		{"env without a value", map[string]string{"x/rootfs/": "", "x/config.json": `{"env": ["A=1", "B"]}`}, "x/config.json", `"B"`},
		{"env without a key", map[string]string{"x/rootfs/": "", "x/config.json": `{"env": ["=1"]}`}, "x/config.json", `"=1"`},
		{"env with NUL", map[string]string{"x/rootfs/": "", "x/config.json": `{"env": ["A=\u0000"]}`}, "x/config.json", `"A=\x00"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := files(t, t.TempDir(), tt.files)
			_, err := rootfs.NewCatalog(dir, t.TempDir()).Lookup("x")
			var terr *rootfs.TemplateError
			if !errors.As(err, &terr) {
				t.Fatalf("Lookup: %v, want a *TemplateError", err)
			}
			if terr.Name != "x" || terr.Path != filepath.Join(dir, tt.path) || !strings.Contains(terr.Reason, tt.want) {
				t.Errorf("Lookup: %+v, want the path %s and a reason with %q", terr, tt.path, tt.want)
			}
		})
	}
	t.Run("absolute path of a file", func(t *testing.T) {
		path := files(t, t.TempDir(), map[string]string{"f": ""}) + "/f"
		_, err := rootfs.NewCatalog(t.TempDir(), t.TempDir()).Lookup(path)
		var terr *rootfs.TemplateError
		if !errors.As(err, &terr) || terr.Path != path {
			t.Errorf("Lookup: %v, want a *TemplateError of %s", err, path)
		}
	})
}
