package engine_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// module is the import path of the module, with a slash.
const module = "github.com/nestbox/nestbox/"

// listed is what go list tells of a package, see go help list.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Deps                               []string // all that it needs, not counting its tests
}

// goCommand runs the go command at the module's top and gives what it prints.
func goCommand(t *testing.T, env []string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		const why = "packages are listed and built by the go command: put it into PATH"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s go %s: %v\n%s", strings.Join(env, " "), strings.Join(args, " "), err, &stderr)
	}
	return out
}

// packages lists the module's packages by their import paths in it.
func packages(t *testing.T) map[string]listed {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(goCommand(t, nil, "list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps", "./...")))
	list := map[string]listed{}
	for {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list[strings.TrimPrefix(p.ImportPath, module)] = p
	}
}

// in tells whether a package is, or is below, one of paths.
func in(pkg string, paths ...string) bool {
	return slices.ContainsFunc(paths, func(path string) bool { return pkg == path || strings.HasPrefix(pkg, path+"/") })
}

// TestLayers holds who may import whom. What is said of a package is so for those below it and for all
// their tests.
func TestLayers(t *testing.T) {
	list := packages(t)
	ours := []struct {
		pkg     string
		imports []string // of the module's packages, these and those below the package itself alone
	}{
		{"store", nil},
		{"lease", []string{"store"}},
		{"rootfs", nil},
		{"fsapi", nil},
		{"engine/internal/wire", nil},
		{"engine/internal/container", nil},
		{"engine/internal/seccomp", nil},
		{"engine/internal/agent", []string{"engine/internal/wire", "fsapi", "lease", "store"}},
		{"engine", []string{"store", "lease", "rootfs", "fsapi"}},
	}
	for _, tt := range ours {
		for name, p := range list {
			if !in(name, tt.pkg) {
				continue
			}
			for _, imported := range slices.Concat(p.Deps, p.TestImports, p.XTestImports) {
				path, own := strings.CutPrefix(imported, module)
				if own && !in(path, tt.pkg) && !in(path, tt.imports...) {
					t.Errorf("%s imports %s; in %s is allowed %q", name, path, tt.pkg, tt.imports)
				}
			}
		}
	}
	for name, p := range list {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if name != "engine/internal/container" && in(imported, "github.com/opencontainers/runc", "github.com/opencontainers/cgroups") {
				t.Errorf("%s imports %s, which is for engine/internal/container alone", name, imported)
			}
		}
	}
	for _, name := range []string{"store", "lease", "rootfs", "fsapi", "engine", "engine/internal/wire", "engine/internal/container", "engine/internal/seccomp", "engine/internal/agent"} {
		if _, ok := list[name]; !ok {
			t.Errorf("there is no package %s; is this test about another tree?", name)
		}
	}
}

func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"LICENSE", "README.md", "engine", "examples", "fsapi", "go.mod", "go.sum", "lease", "rootfs", "store", "testdata"}
	for _, e := range entries {
		if name := e.Name(); name[0] != '.' && !slices.Contains(want, name) {
			t.Errorf("%s stands at the top level, which holds %q and dot files alone", name, want)
		}
	}
}

// TestOtherSystems builds the packages where no sandbox can be made. Programs that embed nestbox must still
// compile there.
func TestOtherSystems(t *testing.T) {
	if testing.Short() {
		t.Skip("builds everything twice more")
	}
	for _, env := range [][]string{
		{"GOOS=darwin", "CGO_ENABLED=0"},
		{"GOOS=linux", "CGO_ENABLED=0"},
	} {
		goCommand(t, env, "build", "./engine/...", "./fsapi/...", "./lease/...", "./rootfs/...", "./store/...")
	}
}
