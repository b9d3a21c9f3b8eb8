package engine_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// escapesDir has the corpus, see README.md there.
const escapesDir = "../testdata/escapes"

// attempt is a folder of the corpus: a program that tries to leave its sandbox, and what about.json says of it.
type attempt struct {
	name string
	dir  string

	Tries    string   // what it does
	Class    string   // the CVEs, or the class of them, that it stands for
	As       []string // the users that it runs as, root and user
	Host     string   // what the host does with what it planted, see hostActions; empty: nothing
	Disk     bool     // its files are a directory of the host's, and not in a file system of the sandbox's own
	Weakened string   // the setting in which it succeeds, see settings; empty: none, and WhyNot says why
	Reaches  string   // what it reaches there, seen from outside, see canary.reached; empty: its own word is all there is
	WhyNot   string
	Arch     string // the only architecture that it is for; empty: any
}

// attempts reads the corpus.
func attempts(t *testing.T) (list []attempt) {
	t.Helper()
	for _, name := range folders(t, escapesDir) {
		a := attempt{name: name, dir: filepath.Join(escapesDir, name)}
		f, err := os.Open(filepath.Join(a.dir, "about.json"))
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(f)
		d.DisallowUnknownFields()
		if err := d.Decode(&a); err != nil {
			t.Fatalf("%s: %v", f.Name(), err)
		}
		_ = f.Close()
		list = append(list, a)
	}
	return list
}

// folders gives the names of the directories in dir.
func folders(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, name := range list(t, dir) {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.IsDir() {
			names = append(names, name)
		}
	}
	return names
}

// needArch skips what another architecture has.
func (a attempt) needArch(t *testing.T) {
	t.Helper()
	if a.Arch != "" && a.Arch != runtime.GOARCH {
		t.Skipf("only %s has this way, and this machine is %s", a.Arch, runtime.GOARCH)
	}
}

// programs are those that were compiled, by the name of their attempt: each is a func() ([]byte, error).
var programs sync.Map

// program gives the file to be executed: the script, or what the C program compiles to, linked statically so that it
// runs wherever it is put.
func (a attempt) program() ([]byte, error) {
	if data, err := os.ReadFile(filepath.Join(a.dir, "attempt.sh")); !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	f, _ := programs.LoadOrStore(a.name, sync.OnceValues(a.compile))
	return f.(func() ([]byte, error))()
}

func (a attempt) compile() ([]byte, error) {
	dir, err := os.MkdirTemp("", "nestbox-attempt-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "attempt")
	cc := exec.Command("gcc", "-static", "-pthread", "-Wall", "-Werror", "-I", escapesDir, "-o", out, filepath.Join(a.dir, "attempt.c"))
	if msg, err := cc.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile %s: %w\n%s", a.name, err, msg)
	}
	return os.ReadFile(out)
}

// verdicts are the words that an attempt's last line begins with, and the status that it ends with then. Two of
// them, so that a program that crashed, or that never began, is not taken for one that was held.
var verdicts = map[string]int{
	"escaped": 0, // it got through
	"held":    3, // it was refused
	"planted": 4, // it left something for the host to fall for, and the host decides
	"absent":  5, // the kernel has nothing of the kind, in the sandbox or elsewhere
}

// runningAttempt is an attempt under way.
type runningAttempt struct {
	stdin  io.Closer
	stdout io.ReadCloser
	wait   func() (status int, err error) // after stdout is at its end
}

// ending is how an attempt ended.
type ending struct {
	word   string // one of verdicts
	output string // all that it printed
	host   string // what the host's act gave
}

// finish reads what the attempt prints to its end, and has act called for what it planted, while it still runs.
func (r runningAttempt) finish(act func(path string) string) (o ending, err error) {
	var last string
	var out, host strings.Builder
	if act == nil {
		_ = r.stdin.Close()
	}
	// Who is left running holds the output open, also when its command has ended.
	defer time.AfterFunc(patience, func() { _ = r.stdout.Close() }).Stop()
	lines := bufio.NewReader(r.stdout)
	for {
		line, err := lines.ReadString('\n')
		out.WriteString(line)
		if strings.TrimSpace(line) != "" {
			last = line
		}
		if paths, ok := strings.CutPrefix(line, "planted: "); ok && act != nil {
			for path := range strings.FieldsSeq(paths) {
				host.WriteString(act(path))
			}
			_ = r.stdin.Close() // which tells it to go on
		}
		if err != nil {
			break // at the end, or when the attempt was cut off, which its status tells
		}
	}
	_ = r.stdin.Close()
	status, err := r.wait()
	o = ending{output: out.String(), host: host.String()}
	if err != nil {
		return o, err
	}
	word, _, _ := strings.Cut(last, ":")
	if want, ok := verdicts[word]; !ok || status != want {
		return o, fmt.Errorf("its last line is %q and its status %d, which is no verdict", last, status)
	}
	o.word = word
	return o, nil
}
