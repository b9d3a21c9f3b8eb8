package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// A world is where the programs of the parity table run: the host, by os/exec, or a sandbox, by Cmd. Both have a
// directory of the same name with the same files, in which commands start.
type world struct {
	dir     string
	command func(ctx context.Context, name string, arg ...string) *command // nil: Command, without a context
}

// command is what exec.Cmd and engine.Cmd have in common: their methods, and their fields by these pointers.
type command struct {
	methods
	args, env *[]string
	dir       *string
	stdin     *io.Reader
	out, errw *io.Writer
	cancel    *func() error
	delay     *time.Duration
	signal    func(os.Signal) error
	pid       func() int
	state     func() state // nil: none
	killed    func() error
}

type methods interface {
	Run() error
	Start() error
	Wait() error
	Output() ([]byte, error)
	CombinedOutput() ([]byte, error)
	StdinPipe() (io.WriteCloser, error)
	StdoutPipe() (io.ReadCloser, error)
	StderrPipe() (io.ReadCloser, error)
	Environ() []string
	String() string
}

// state is what os.ProcessState and engine.ProcessState have in common.
type state interface {
	Exited() bool
	ExitCode() int
	Pid() int
	String() string
	Success() bool
	Sys() any
	SysUsage() any
	SystemTime() time.Duration
	UserTime() time.Duration
}

var (
	_ state = (*os.ProcessState)(nil)
	_ state = (*engine.ProcessState)(nil)
)

func hostWorld(dir string) *world {
	return &world{dir: dir, command: func(ctx context.Context, name string, arg ...string) *command {
		c := exec.Command(name, arg...)
		if ctx != nil {
			c = exec.CommandContext(ctx, name, arg...)
		}
		return &command{
			methods: c, args: &c.Args, env: &c.Env, dir: &c.Dir, stdin: &c.Stdin, out: &c.Stdout, errw: &c.Stderr,
			cancel: &c.Cancel, delay: &c.WaitDelay,
			signal: func(sig os.Signal) error { return c.Process.Signal(sig) },
			killed: func() error { return c.Process.Kill() },
			pid:    func() int { return c.Process.Pid },
			state: func() state {
				if c.ProcessState == nil {
					return nil
				}
				return c.ProcessState
			},
		}
	}}
}

func sandboxWorld(sb *engine.Sandbox, dir string, spool int64) *world {
	return &world{dir: dir, command: func(ctx context.Context, name string, arg ...string) *command {
		c := sb.Command(name, arg...)
		if ctx != nil {
			c = sb.CommandContext(ctx, name, arg...)
		}
		c.Spool = spool
		return &command{
			methods: c, args: &c.Args, env: &c.Env, dir: &c.Dir, stdin: &c.Stdin, out: &c.Stdout, errw: &c.Stderr,
			cancel: &c.Cancel, delay: &c.WaitDelay, signal: c.Signal, killed: c.Kill, pid: c.Pid,
			state: func() state {
				if c.ProcessState == nil {
					return nil
				}
				return c.ProcessState
			},
		}
	}}
}

// sh is a shell's command.
func (w *world) sh(script string) *command { return w.command(nil, "sh", "-c", script) }

// errText is an error without which package says it.
func (w *world) errText(err error) string {
	s := strings.ReplaceAll(err.Error(), w.dir, "DIR")
	return strings.TrimPrefix(strings.TrimPrefix(s, "exec: "), "engine: ")
}

// describe tells the type of an error, and what else a program may find out of it.
func (w *world) describe(err error) string {
	exit := func(p state, stderr []byte) string {
		return fmt.Sprintf("ExitError{%v code %d exited %v success %v status %v stderr %q}",
			err, p.ExitCode(), p.Exited(), p.Success(), p.Sys(), stderr)
	}
	switch e := err.(type) {
	case nil:
		return "nil"
	case *exec.ExitError:
		return exit(e.ProcessState, e.Stderr)
	case *engine.ExitError:
		return exit(e.ProcessState, e.Stderr)
	case *exec.Error:
		return fmt.Sprintf("exec.Error{%s %v dot %v}", e.Name, e.Err, errors.Is(err, exec.ErrDot))
	case *fs.PathError:
		return fmt.Sprintf("PathError{%s %s %T %v}", e.Op, strings.Replace(e.Path, w.dir, "DIR", 1), e.Err, e.Err)
	}
	s := fmt.Sprintf("%T{%s}", err, w.errText(err))
	if strings.HasPrefix(s, "exec.wrappedError") { // its own
		s = "*fmt.wrapError{" + w.errText(err) + "}"
	}
	for _, target := range []error{exec.ErrWaitDelay, exec.ErrNotFound, exec.ErrDot, context.Canceled, context.DeadlineExceeded, os.ErrProcessDone, os.ErrClosed, errTest} {
		if errors.Is(err, target) {
			s += " is " + target.Error()
		}
		if err == target {
			s += " itself"
		}
	}
	return s
}

var errTest = errors.New("test error")

// testPath is PATH in both worlds.
const testPath = "/usr/local/bin:/usr/bin:/bin:rel"

// parityFiles are what both worlds have. Names that end in a slash are directories.
var parityFiles = []struct {
	name, content string
	perm          fs.FileMode
}{
	{"sub/", "", 0o755},
	{"rel/", "", 0o755},
	{"locked/", "", 0o700},
	{"rel/only-here", "#!/bin/sh\necho rel\n", 0o755},
	{"sub/script", "#!/bin/sh\necho \"$0 $*\"\n", 0o755},
	{"script", "#!/bin/sh\necho \"$0 $*\"\n", 0o755},
	{"plain", "#!/bin/sh\n", 0o644},
	{"text", "echo no shebang\n", 0o755},
	{"empty", "", 0o755},
	{"bad-interpreter", "#!/no/such/interpreter\n", 0o755},
	{"interpreter-is-a-directory", "#!/tmp\n", 0o755},
	{"loop", "#!DIR/loop\n", 0o755},
}

// parityWorlds makes both worlds, and one more where commands have a spool.
func parityWorlds(t *testing.T) (host, sandbox, spooled *world) {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PATH", testPath)
	t.Setenv("MARK", "of the parent")
	sb := create(t, open(t, ""), engine.CreateOptions{Dir: dir, Env: []string{"PATH=" + testPath, "MARK=of the parent"}})
	for _, f := range parityFiles {
		name, content := filepath.Join(dir, f.name), strings.ReplaceAll(f.content, "DIR", dir)
		var herr, serr error
		if strings.HasSuffix(f.name, "/") {
			herr, serr = os.MkdirAll(name, f.perm), sb.FS().MkdirAll(name, f.perm)
		} else {
			herr, serr = os.WriteFile(name, []byte(content), f.perm), sb.FS().WriteFile(name, []byte(content), f.perm)
		}
		if err := errors.Join(herr, serr); err != nil {
			t.Fatal(err)
		}
	}
	return hostWorld(dir), sandboxWorld(sb, dir, 0), sandboxWorld(sb, dir, 1<<20)
}

// TestParity runs the table by os/exec, by Cmd, and by Cmd with a Spool. What comes of it is the same.
func TestParity(t *testing.T) {
	host, sandbox, spooled := parityWorlds(t)
	for _, tt := range parityTable {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.run(t, host)
			t.Logf("%q", want)
			if got := tt.run(t, sandbox); !reflect.DeepEqual(got, want) {
				t.Errorf("outcome:\n got %q\nwant %q", got, want)
			}
			if tt.noSpool {
				return
			}
			if got := tt.run(t, spooled); !reflect.DeepEqual(got, want) {
				t.Errorf("outcome with a spool:\n got %q\nwant %q", got, want)
			}
		})
	}
}

// outcome is what came of a command.
type outcome []any

// run gives the outcome of Run, with what the command wrote.
func (w *world) run(c *command) outcome {
	var stdout, stderr bytes.Buffer
	*c.out, *c.errw = &stdout, &stderr
	err := c.Run()
	return outcome{w.describe(err), strings.ReplaceAll(stdout.String(), w.dir, "DIR"), strings.ReplaceAll(stderr.String(), w.dir, "DIR")}
}

// output gives the outcome of Output.
func (w *world) output(c *command) outcome {
	out, err := c.Output()
	return outcome{string(out), w.describe(err)}
}

// failingReader gives an error after some bytes.
type failingReader struct{ r io.Reader }

func (f failingReader) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if err == io.EOF {
		err = errTest
	}
	return n, err
}

// failingWriter takes some bytes and then no more.
type failingWriter struct{ left int }

func (f *failingWriter) Write(b []byte) (int, error) {
	if len(b) > f.left {
		return 0, errTest
	}
	f.left -= len(b)
	return len(b), nil
}

// simple is a case of a command that is only run.
func simple(f func(w *world) *command) func(*testing.T, *world) outcome {
	return func(t *testing.T, w *world) outcome { return w.run(f(w)) }
}

// shell is a case of a script that is only run.
func shell(script string) func(*testing.T, *world) outcome {
	return simple(func(w *world) *command { return w.sh(script) })
}

// program is a case of a program without arguments.
func program(name string) func(*testing.T, *world) outcome {
	return simple(func(w *world) *command {
		return w.command(nil, strings.Replace(name, "DIR", w.dir, 1))
	})
}

// inDir is a case of a working directory.
func inDir(dir string) func(*testing.T, *world) outcome {
	return simple(func(w *world) *command {
		c := w.sh("pwd; echo $PWD")
		*c.dir = strings.Replace(dir, "DIR", w.dir, 1)
		return c
	})
}

// withEnv is a case of an environment.
func withEnv(env []string) func(*testing.T, *world) outcome {
	return func(t *testing.T, w *world) outcome {
		c := w.command(nil, "/usr/bin/env")
		*c.env = env
		return append(w.output(c), c.Environ())
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var parityTable = []struct {
	name    string
	run     func(t *testing.T, w *world) outcome
	noSpool bool // a spool is meant to make a difference
}{
	// Exit codes.
	{name: "exit 0", run: shell("exit 0")},
	{name: "exit 1", run: shell("echo out; echo err >&2; exit 1")},
	{name: "exit 2", run: shell("exit 2")},
	{name: "exit 126", run: shell("exit 126")},
	{name: "exit 127", run: shell("exit 127")},
	{name: "exit 255", run: shell("exit 255")},
	{name: "exit -1", run: shell("exit 4095")},
	{name: "killed", run: shell("kill -KILL $$")},
	{name: "terminated", run: shell("kill -TERM $$")},
	{name: "real-time signal", run: shell("kill -40 $$")},

	// Programs.
	{name: "program missing", run: program("no-such-program")},
	{name: "path missing", run: program("/no/such/program")},
	{name: "relative path missing", run: program("./no-such-program")},
	{name: "not executable", run: program("DIR/plain")},
	{name: "a directory", run: program("DIR/sub")},
	{name: "below a file", run: program("DIR/plain/x")},
	{name: "bad interpreter", run: program("DIR/bad-interpreter")},
	{name: "interpreter is a directory", run: program("DIR/interpreter-is-a-directory")},
	{name: "interpreter loop", run: program("DIR/loop")},
	{name: "text without shebang", run: program("DIR/text")},
	{name: "empty file", run: program("DIR/empty")},
	{name: "empty path", run: program("")},
	{name: "dot", run: program(".")},
	{name: "two dots", run: program("..")},
	{name: "relative path", run: program("./script")},
	{name: "relative path in a directory", run: program("sub/script")},
	{name: "relative entry of PATH", run: program("only-here")},
	{name: "nul in path", run: program("/bin/a\x00b")},
	{name: "name too long", run: program("/" + strings.Repeat("x", 300))},
	{name: "nul in argument", run: simple(func(w *world) *command { return w.command(nil, "echo", "a\x00b") })},
	{name: "arguments", run: simple(func(w *world) *command {
		return w.command(nil, w.dir+"/script", "", "a b", "*", "\n", "\xff", strings.Repeat("long", 20000))
	})},
	{name: "other argv 0", run: func(t *testing.T, w *world) outcome {
		c := w.sh("")
		*c.args = []string{"another", "-c", "echo $0"}
		return w.run(c)
	}},
	{name: "no args", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "true", "ignored")
		*c.args = nil
		return w.run(c)
	}},
	{name: "argument list too long", run: func(t *testing.T, w *world) outcome {
		return w.run(w.command(nil, "/bin/true", strings.Repeat("x", 200<<10)))
	}},

	// Directories.
	{name: "Dir", run: inDir("DIR/sub")},
	{name: "Dir relative", run: inDir("sub")},
	{name: "Dir not clean", run: inDir("DIR/sub/../sub/.")},
	{name: "Dir missing", run: inDir("DIR/missing")},
	{name: "Dir relative missing", run: inDir("missing")},
	{name: "Dir is a file", run: inDir("DIR/plain")},
	{name: "Dir below a file", run: inDir("DIR/plain/x")},
	{name: "Dir with nul", run: inDir("a\x00b")},
	{name: "Dir and relative path", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "./script", "x")
		*c.dir = "sub"
		return w.run(c)
	}},

	// Environments.
	{name: "Env nil", run: shell("echo $MARK")},
	{name: "Env empty", run: withEnv([]string{})},
	{name: "Env", run: withEnv([]string{"A=1", "B=", "C=a=b\n"})},
	{name: "Env with duplicates", run: withEnv([]string{"A=1", "B=2", "A=3", "a=4", "B=5", "A=6"})},
	{name: "Env with what is none", run: withEnv([]string{"A=1", "none", "", "=x", "==y", "none"})},
	{name: "Env with nul", run: withEnv([]string{"A=1", "B=a\x00b"})},
	{name: "PATH is the parent's", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "true")
		*c.env = []string{"PATH=/nowhere"}
		return w.run(c)
	}},

	// Standard input.
	{name: "stdin nil", run: shell("cat; readlink /proc/self/fd/0")},
	{name: "stdin of a string", run: simple(func(w *world) *command {
		c := w.command(nil, "cat")
		*c.stdin = strings.NewReader("some\x00text")
		return c
	})},
	{name: "stdin of a file", run: func(t *testing.T, w *world) outcome {
		f := must[*os.File](t)(os.CreateTemp(t.TempDir(), ""))
		defer f.Close()
		must[int](t)(f.WriteString("0123456789"))
		must[int64](t)(f.Seek(3, io.SeekStart))
		c := w.command(nil, "head", "-c", "4")
		*c.stdin = f
		got := w.run(c)
		return append(got, must[int64](t)(f.Seek(0, io.SeekCurrent)) > 3) // the position is shared
	}},
	{name: "stdin closed", run: simple(func(w *world) *command {
		c := w.sh("read x; echo $?; ls /proc/self/fd/0 >/dev/null 2>&1; cat")
		*c.stdin = (*os.File)(nil)
		return c
	})},
	{name: "stdin that is not read", run: simple(func(w *world) *command {
		c := w.command(nil, "true")
		*c.stdin = strings.NewReader(strings.Repeat("x", 4<<20))
		return c
	})},
	{name: "stdin that fails", run: simple(func(w *world) *command {
		c := w.command(nil, "cat")
		*c.stdin = failingReader{strings.NewReader("before")}
		return c
	})},
	{name: "stdin that fails, and exit code", run: simple(func(w *world) *command {
		c := w.sh("cat; exit 4")
		*c.stdin = failingReader{strings.NewReader("before")}
		return c
	})},
	{name: "stdin of a pipe's end", run: func(t *testing.T, w *world) outcome {
		r, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		c := w.command(nil, "cat")
		*c.stdin = r
		go func() {
			_, _ = pw.WriteString("through a pipe")
			_ = pw.Close()
		}()
		return w.run(c)
	}},
	{name: "StdinPipe", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "cat")
		var out bytes.Buffer
		*c.out = &out
		in := must[io.WriteCloser](t)(c.StdinPipe())
		_, again := c.StdinPipe()
		started := c.Start()
		n, werr := io.WriteString(in, "text")
		cerr := in.Close()
		wait := c.Wait()
		return outcome{w.describe(again), w.describe(started), n, w.describe(werr), w.describe(cerr), w.describe(wait), out.String(), errors.Is(in.Close(), os.ErrClosed)}
	}},
	{name: "StdinPipe closed by Wait", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "true")
		in := must[io.WriteCloser](t)(c.StdinPipe())
		err := c.Run()
		_, werr := io.WriteString(in, "text")
		return outcome{w.describe(err), errors.Is(werr, os.ErrClosed), errors.Is(in.Close(), os.ErrClosed)}
	}},
	{name: "StdinPipe to who has ended", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "true")
		in := must[io.WriteCloser](t)(c.StdinPipe())
		out := must[io.ReadCloser](t)(c.StdoutPipe())
		err := c.Start()
		_, _ = io.Copy(io.Discard, out)
		_, werr := in.Write(make([]byte, 1<<20))
		return outcome{w.describe(err), errors.Is(werr, syscall.EPIPE), w.describe(c.Wait())}
	}},

	// Output.
	{name: "output nil", run: func(t *testing.T, w *world) outcome {
		return outcome{w.describe(w.sh("echo x; echo y >&2; exit 3").Run())}
	}},
	{name: "big output on both streams", run: func(t *testing.T, w *world) outcome {
		c := w.sh("i=0; while [ $i -lt 64 ]; do head -c 131072 /dev/zero; head -c 65536 /dev/zero >&2; i=$((i+1)); done")
		var stdout, stderr bytes.Buffer
		*c.out, *c.errw = &stdout, &stderr
		return outcome{w.describe(c.Run()), stdout.Len(), stderr.Len()}
	}},
	{name: "one writer for both", run: func(t *testing.T, w *world) outcome {
		c := w.sh("for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done; [ /proc/self/fd/1 -ef /proc/self/fd/2 ] && echo same")
		out, err := c.CombinedOutput()
		return outcome{string(out), w.describe(err)}
	}},
	{name: "writer that fails", run: func(t *testing.T, w *world) outcome {
		c := w.sh("trap '' PIPE; echo x; echo y 2>/dev/null; exit 0") // goes well, whatever becomes of its output
		*c.out = &failingWriter{}
		return outcome{w.describe(c.Run())}
	}, noSpool: true},
	{name: "writer that fails, and SIGPIPE", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "yes")
		*c.out = &failingWriter{64 << 10}
		return outcome{w.describe(c.Run())}
	}, noSpool: true},
	{name: "StdoutPipe closed early", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "yes")
		out := must[io.ReadCloser](t)(c.StdoutPipe())
		err := c.Start()
		n, rerr := io.ReadFull(out, make([]byte, 100))
		cerr := out.Close()
		return outcome{w.describe(err), n, w.describe(rerr), w.describe(cerr), w.describe(c.Wait()), errors.Is(out.Close(), os.ErrClosed)}
	}, noSpool: true},
	{name: "StdoutPipe and StderrPipe", run: func(t *testing.T, w *world) outcome {
		c := w.sh("echo out; echo err >&2; exit 5")
		out, errp := must[io.ReadCloser](t)(c.StdoutPipe()), must[io.ReadCloser](t)(c.StderrPipe())
		_, again := c.StdoutPipe()
		_, againErr := c.StderrPipe()
		started := c.Start()
		o, oerr := io.ReadAll(out)
		e, eerr := io.ReadAll(errp)
		wait := c.Wait()
		_, after := out.Read(make([]byte, 1))
		return outcome{w.describe(again), w.describe(againErr), w.describe(started), string(o), string(e), w.describe(oerr), w.describe(eerr), w.describe(wait), errors.Is(after, os.ErrClosed)}
	}},
	{name: "Stderr is StdoutPipe's Stdout", run: func(t *testing.T, w *world) outcome {
		c := w.sh("echo out; echo err >&2; echo out again")
		out := must[io.ReadCloser](t)(c.StdoutPipe())
		*c.errw = *c.out
		started := c.Start()
		o, err := io.ReadAll(out)
		return outcome{w.describe(started), string(o), w.describe(err), w.describe(c.Wait())}
	}},
	{name: "pipes after Start", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "true")
		started := c.Start()
		_, in := c.StdinPipe()
		_, out := c.StdoutPipe()
		_, errp := c.StderrPipe()
		return outcome{w.describe(started), w.describe(in), w.describe(out), w.describe(errp), w.describe(c.Wait())}
	}},
	{name: "output to a file", run: func(t *testing.T, w *world) outcome {
		f := must[*os.File](t)(os.CreateTemp(t.TempDir(), ""))
		defer f.Close()
		must[int](t)(f.WriteString("before "))
		c := w.sh("echo out; echo err >&2")
		*c.out, *c.errw = f, f
		err := c.Run()
		must[int](t)(f.WriteString("after"))
		return outcome{w.describe(err), string(must[[]byte](t)(os.ReadFile(f.Name())))}
	}},
	{name: "output to a closed file", run: func(t *testing.T, w *world) outcome {
		f := must[*os.File](t)(os.CreateTemp(t.TempDir(), ""))
		_ = f.Close()
		c := w.command(nil, "echo", "x")
		var stderr bytes.Buffer
		*c.out, *c.errw = f, &stderr
		return outcome{w.describe(c.Run()), stderr.String()}
	}, noSpool: true},
	{name: "Output with Stdout set", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "true")
		*c.out = io.Discard
		_, err := c.Output()
		_, combined := c.CombinedOutput()
		d := w.command(nil, "true")
		*d.errw = io.Discard
		_, stderr := d.CombinedOutput()
		return outcome{w.describe(err), w.describe(combined), w.describe(stderr)}
	}},
	{name: "Output keeps stderr", run: func(t *testing.T, w *world) outcome {
		return w.output(w.sh("echo out; echo err >&2; exit 6"))
	}},
	{name: "Output cuts stderr", run: func(t *testing.T, w *world) outcome {
		return w.output(w.sh("seq 100000 >&2; exit 6"))
	}},
	{name: "Output with a stderr of twice 32 KiB", run: func(t *testing.T, w *world) outcome {
		return w.output(w.sh("head -c 65536 /dev/zero | tr '\\0' x >&2; exit 6"))
	}},
	{name: "Output with Stderr set", run: func(t *testing.T, w *world) outcome {
		c := w.sh("echo out; echo err >&2; exit 6")
		var stderr bytes.Buffer
		*c.errw = &stderr
		return append(w.output(c), stderr.String())
	}},

	// Signals.
	{name: "signals", run: func(t *testing.T, w *world) outcome {
		c := w.sh("trap 'echo got it; exit 7' USR1; echo ready; while :; do read x; done")
		in, out := must[io.WriteCloser](t)(c.StdinPipe()), must[io.ReadCloser](t)(c.StdoutPipe())
		started := c.Start()
		readLine(t, out)
		null := c.signal(syscall.Signal(0))
		bad := c.signal(syscall.Signal(1000))
		sent := c.signal(syscall.SIGUSR1)
		_ = in.Close()
		rest, _ := io.ReadAll(out)
		wait := c.Wait()
		return outcome{w.describe(started), w.describe(null), w.describe(bad), w.describe(sent), string(rest), w.describe(wait), w.describe(c.signal(syscall.SIGUSR1)), w.describe(c.killed())}
	}},
	{name: "stopped, and goes on", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "cat")
		in, out := must[io.WriteCloser](t)(c.StdinPipe()), must[io.ReadCloser](t)(c.StdoutPipe())
		got := outcome{w.describe(c.Start()), w.describe(c.signal(syscall.SIGSTOP))}
		_, _ = io.WriteString(in, "while stopped\n")
		got = append(got, w.describe(c.signal(syscall.SIGCONT)))
		got = append(got, readLine(t, out), w.describe(in.Close()))
		return append(got, w.describe(c.Wait()))
	}},
	{name: "stopped, and killed", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "cat")
		must[io.WriteCloser](t)(c.StdinPipe())
		got := outcome{w.describe(c.Start()), w.describe(c.signal(syscall.SIGSTOP)), w.describe(c.killed())}
		return append(got, w.describe(c.Wait()))
	}},
	{name: "signal that isn't one", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "cat")
		in := must[io.WriteCloser](t)(c.StdinPipe())
		err := c.Start()
		got := outcome{w.describe(err), c.signal(notASignal{}) != nil}
		_ = in.Close()
		return append(got, w.describe(c.Wait()))
	}},

	// Those left behind.
	{name: "grandchild holds the pipe", run: func(t *testing.T, w *world) outcome {
		c := w.sh("(sleep 0.2; echo late) & echo early")
		start := time.Now()
		return append(w.run(c), time.Since(start) >= 200*time.Millisecond)
	}},
	{name: "grandchild holds the pipe, and WaitDelay", run: func(t *testing.T, w *world) outcome {
		c := w.sh("(trap '' PIPE; cat; sleep 0.3; echo too late) & echo early")
		var out bytes.Buffer
		*c.out, *c.delay = &out, 50*time.Millisecond
		err := c.Run()
		return outcome{w.describe(err), out.String()}
	}},
	{name: "grandchild holds the pipe, and WaitDelay, and exit code", run: func(t *testing.T, w *world) outcome {
		c := w.sh("sleep 0.3 & exit 3")
		*c.out, *c.delay = io.Discard, 50*time.Millisecond
		return outcome{w.describe(c.Run())}
	}},
	{name: "grandchild holds a file", run: func(t *testing.T, w *world) outcome {
		c := w.sh("sleep 1000 >/dev/null 2>&1 & echo $!")
		out, err := c.Output()
		pid := must[int](t)(strconv.Atoi(strings.TrimSpace(string(out))))
		return outcome{w.describe(err), w.describe(w.command(nil, "kill", strconv.Itoa(pid)).Run())}
	}},

	// Contexts.
	{name: "context done before", run: func(t *testing.T, w *world) outcome {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c := w.command(ctx, "true")
		return outcome{w.describe(c.Run()), c.state() == nil}
	}},
	{name: "context done before, cause", run: func(t *testing.T, w *world) outcome {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errTest)
		return outcome{w.describe(w.command(ctx, "true").Run())}
	}},
	{name: "context done", run: func(t *testing.T, w *world) outcome {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := w.command(ctx, "sleep", "1000")
		started := c.Start()
		cancel()
		return outcome{w.describe(started), w.describe(c.Wait())}
	}},
	{name: "context's deadline", run: func(t *testing.T, w *world) outcome {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return outcome{w.describe(w.command(ctx, "sleep", "1000").Run())}
	}},
	{name: "context not done", run: func(t *testing.T, w *world) outcome {
		return w.output(w.command(t.Context(), "echo", "x"))
	}},
	{name: "Cancel without a context", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "true")
		*c.cancel = func() error { return nil }
		return outcome{w.describe(c.Run())}
	}},
	{name: "Cancel that does nothing", run: canceled("exit 0", 0, func(*command) error { return nil })},
	{name: "Cancel that does nothing, and exit code", run: canceled("exit 9", 0, func(*command) error { return nil })},
	{name: "Cancel by a signal", run: canceled("exit 0", 0, func(c *command) error { return c.signal(syscall.SIGTERM) })},
	{name: "Cancel that fails", run: canceled("exit 0", 0, func(*command) error { return errTest })},
	{name: "Cancel that says done", run: canceled("exit 0", 0, func(*command) error { return os.ErrProcessDone })},
	{name: "Cancel that wraps done", run: canceled("exit 0", 0, func(*command) error { return fmt.Errorf("x: %w", os.ErrProcessDone) })},
	{name: "Cancel that fails, and WaitDelay", run: canceled("sleep 1000", 50*time.Millisecond, func(*command) error { return errTest })},
	{name: "Cancel that is ignored, and WaitDelay", run: canceled("trap '' TERM; sleep 1000", 50*time.Millisecond, func(c *command) error { return c.signal(syscall.SIGTERM) })},
	{name: "Cancel nil", run: canceled("exit 0", 0, nil)},
	{name: "Cancel nil, and WaitDelay", run: canceled("exec sleep 1000", 50*time.Millisecond, nil)},
	{name: "context done, and a grandchild holds the pipe", run: func(t *testing.T, w *world) outcome {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := w.command(ctx, "sh", "-c", "setsid sleep 1 & echo ready >&2; exec sleep 1000")
		*c.out, *c.delay = io.Discard, 50*time.Millisecond
		errp := must[io.ReadCloser](t)(c.StderrPipe())
		started := c.Start()
		readLine(t, errp)
		cancel()
		return outcome{w.describe(started), w.describe(c.Wait())}
	}},

	// The order of calls.
	{name: "Start twice", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "true")
		return outcome{w.describe(c.Start()), w.describe(c.Start()), w.describe(c.Wait()), w.describe(c.Run())}
	}},
	{name: "Start after a Start that failed", run: func(t *testing.T, w *world) outcome {
		c := w.command(nil, "/no/such/program")
		return outcome{w.describe(c.Start()), w.describe(c.Start()), w.describe(c.Wait())}
	}},
	{name: "Wait twice", run: func(t *testing.T, w *world) outcome {
		c := w.sh("exit 3")
		return outcome{w.describe(c.Start()), w.describe(c.Wait()), w.describe(c.Wait())}
	}},
	{name: "Wait without Start", run: func(t *testing.T, w *world) outcome {
		return outcome{w.describe(w.command(nil, "true").Wait())}
	}},
	{name: "ProcessState", run: func(t *testing.T, w *world) outcome {
		c := w.sh("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; exit 3")
		before := c.state() == nil
		err := c.Run()
		p := c.state()
		usage, ok := p.SysUsage().(*syscall.Rusage)
		return outcome{before, w.describe(err), p.Exited(), p.ExitCode(), p.Success(), p.String(), p.Sys(), p.Pid() == c.pid(),
			p.UserTime() > 0, ok && usage.Maxrss > 0 && time.Duration(usage.Utime.Nano()) == p.UserTime()}
	}},
	{name: "String", run: func(t *testing.T, w *world) outcome {
		return outcome{w.command(nil, "/bin/echo", "a", "b c").String()}
	}},
}

// canceled is a case of a command whose context is done when it runs, which says nothing but "ready" before. It goes
// on when its standard input ends, which is after cancel has returned.
func canceled(then string, delay time.Duration, cancel func(*command) error) func(*testing.T, *world) outcome {
	return func(t *testing.T, w *world) outcome {
		ctx, done := context.WithCancel(t.Context())
		defer done()
		c := w.command(ctx, "sh", "-c", "echo ready; read x; "+then)
		in, out := must[io.WriteCloser](t)(c.StdinPipe()), must[io.ReadCloser](t)(c.StdoutPipe())
		called := make(chan struct{})
		*c.cancel, *c.delay = nil, delay
		if cancel != nil {
			*c.cancel = func() error {
				defer close(called)
				return cancel(c)
			}
		}
		started := c.Start()
		readLine(t, out)
		done()
		if cancel != nil {
			<-called
		}
		_ = in.Close()
		return outcome{w.describe(started), w.describe(c.Wait())}
	}
}

type notASignal struct{}

func (notASignal) Signal()        {}
func (notASignal) String() string { return "not a signal" }

// readLine reads a line, byte by byte.
func readLine(t *testing.T, r io.Reader) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; line = append(line, b[0]) {
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatalf("after %q: %v", line, err)
		}
		if b[0] == '\n' {
			return string(line)
		}
	}
}
