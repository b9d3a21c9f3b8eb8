package agentbin_test

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/agent/agentbin"
)

// needGo skips a test that runs the go command where there is none.
func needGo(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		const why = "the agent is built by the go command: put it into PATH"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
}

// generators gives the commands by which agentbin.go has the binaries built.
func generators(t *testing.T) (list [][]string) {
	t.Helper()
	source, err := os.ReadFile("agentbin.go")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(source)) {
		if command, ok := strings.CutPrefix(line, "//go:generate "); ok {
			list = append(list, words(t, strings.TrimSpace(command)))
		}
	}
	return list
}

// words splits a command as go generate does.
func words(t *testing.T, command string) (list []string) {
	t.Helper()
	for rest := command; rest != ""; rest = strings.TrimLeft(rest, " ") {
		if rest[0] != '"' {
			word, after, _ := strings.Cut(rest, " ")
			list, rest = append(list, word), after
			continue
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		word, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		list, rest = append(list, word), rest[len(quoted):]
	}
	return list
}

// TestBinaries holds that what is committed is what the source says.
func TestBinaries(t *testing.T) {
	needGo(t)
	var built []string
	for _, args := range generators(t) {
		i := slices.Index(args, "-o") + 1
		if i == 0 || i == len(args) {
			t.Fatalf("%q has no -o", args)
		}
		name := args[i]
		built = append(built, name)
		t.Run(name, func(t *testing.T) {
			committed, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			info, err := buildinfo.Read(bytes.NewReader(committed))
			if err != nil {
				t.Fatal(err)
			}
			if info.GoVersion != runtime.Version() {
				t.Fatalf("%s was built by %s and this is %s, which builds another: run the tests with %[2]s, or go generate ./... and commit",
					name, info.GoVersion, runtime.Version())
			}
			args[i] = filepath.Join(t.TempDir(), name)
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%q: %v\n%s", args, err, out)
			}
			fresh, err := os.ReadFile(args[i])
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(fresh, committed) {
				t.Errorf("%s is not what its source builds: run go generate ./... and commit", name)
			}
			if name == "agent_"+runtime.GOOS+"_"+runtime.GOARCH && !bytes.Equal(agentbin.Binary, committed) {
				t.Errorf("Binary is not %s", name)
			}
		})
	}
	if want := []string{"agent_linux_amd64", "agent_linux_arm64"}; !slices.Equal(built, want) {
		t.Errorf("go generate builds %q, want %q", built, want)
	}
}

// Each import makes every sandbox larger, and is code that a guest can try to break.
func TestDependencies(t *testing.T) {
	needGo(t)
	const module = "github.com/nestbox/nestbox/"
	want := []string{
		module + "engine/internal/agent/cmd",
		module + "engine/internal/wire",
		module + "lease",
		module + "store", // by lease
		"golang.org/x/sys/unix",
	}
	for _, arch := range []string{"amd64", "arm64"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "../cmd")
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		got := strings.Fields(string(out))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("for %s the agent depends on %q, want %q", arch, got, want)
		}
	}
}
