package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nestbox/nestbox/engine"
	"golang.org/x/sys/unix"
)

// ground is where an attempt is made.
type ground interface {
	// start starts the attempt as a user, in a directory that is the user's.
	start(t *testing.T, a attempt, c *canary, user string) runningAttempt
	// files is how the host gets at what the attempt has planted.
	files() plantedFiles
}

// settings are the weakened ones. Each is a sandbox, or none: then the attempt runs as a child of this process, as the
// host's root or as user 1000, in namespaces that go with it. Those of bare are all but the user namespace.
var settings = map[string]setting{
	"seccomp":       {weaken: func(o *engine.CreateOptions) { o.Seccomp = engine.SeccompUnconfined }},
	"network":       {weaken: func(o *engine.CreateOptions) { o.Network = engine.NetworkHost }},
	"mount":         {weaken: func(o *engine.CreateOptions) { o.Mounts[0].Writable = true }},
	"limits":        {weaken: func(o *engine.CreateOptions) { o.Limits = engine.Limits{Processes: -1, OpenFiles: -1, Disk: -1} }},
	"bare":          {},
	"bare host ipc": {keep: unix.CLONE_NEWIPC},
	"bare host pid": {keep: unix.CLONE_NEWPID},
	"bare host net": {keep: unix.CLONE_NEWNET},
}

type setting struct {
	weaken func(*engine.CreateOptions) // nil: bare
	keep   uintptr                     // the host's namespaces that it is left in
}

// make gives the ground of a setting.
func (s setting) make(t *testing.T, eng *engine.Engine, a attempt, c *canary) ground {
	t.Helper()
	if s.weaken == nil {
		return bare{keep: s.keep}
	}
	return makeBox(t, eng, a, c, s.weaken)
}

// box is a sandbox. Files of the host are mounted in it at /data.
type box struct {
	eng *engine.Engine
	sb  *engine.Sandbox
}

func makeBox(t *testing.T, eng *engine.Engine, a attempt, c *canary, weaken ...func(*engine.CreateOptions)) box {
	t.Helper()
	o := engine.CreateOptions{Mounts: []engine.Mount{{Source: c.shared(), Target: "/data"}}}
	if a.Disk {
		o.Limits.Disk = -1
	}
	for _, f := range weaken {
		f(&o)
	}
	sb := create(t, eng, o)
	program, err := a.program()
	if err != nil {
		t.Fatal(err)
	}
	if err := sb.FS().WriteFile("/tmp/attempt", program, 0o755); err != nil {
		t.Fatal(err)
	}
	// Of a sandbox the state directory tells where its agent listens. Guests don't see it, but might guess.
	c.env["AGENT_SOCKET"] = filepath.Join(eng.Dir(), "sandboxes", sb.ID(), "agent.sock")
	return box{eng, sb}
}

func (b box) files() plantedFiles { return boxFiles{b} }

func (b box) start(t *testing.T, a attempt, c *canary, user string) runningAttempt {
	t.Helper()
	dir := "/tmp/" + user
	if err := b.sb.FS().Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.sb.FS().Chown(dir, uidOf[user], uidOf[user]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := b.sb.CommandContext(ctx, "/tmp/attempt")
	cmd.User, cmd.Dir, cmd.Env = user, dir, c.environ()
	cmd.Stderr = testWriter{t}
	stdin, stdout, err := pipes(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return runningAttempt{stdin, stdout, func() (int, error) {
		err := cmd.Wait()
		if a.Host == "end" && errors.Is(err, engine.ErrEnded) {
			return verdicts["planted"], nil // as the host has ended it, and the attempt with it
		}
		var exit *engine.ExitError
		if errors.As(err, &exit) && exit.ExitCode() >= 0 {
			return exit.ExitCode(), nil
		}
		return 0, err
	}}
}

var uidOf = map[string]int{"root": 0, "user": 1000}

// checkAgent checks that an attempt did the agent no harm.
func (b box) checkAgent(t *testing.T) {
	t.Helper()
	if pid := agentPID(t, b.eng, b.sb.ID()); !awake(pid) {
		t.Error("the agent has stopped")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.sb.CommandContext(ctx, "true").Run(); err != nil {
		t.Errorf("a command afterwards: %v", err)
	}
}

// pipes gives the ends of a command's standard input and output.
func pipes(cmd interface {
	StdinPipe() (io.WriteCloser, error)
	StdoutPipe() (io.ReadCloser, error)
}) (io.WriteCloser, io.ReadCloser, error) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	stdout, err := cmd.StdoutPipe()
	return stdin, stdout, err
}

// testWriter puts what an attempt says of itself into the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("stderr: %s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// bare is no sandbox at all.
type bare struct{ keep uintptr }

func (b bare) files() plantedFiles { return naiveFiles{} }

func (b bare) start(t *testing.T, a attempt, c *canary, user string) runningAttempt {
	t.Helper()
	program, err := a.program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	name, scratch := filepath.Join(dir, "attempt"), filepath.Join(dir, "scratch")
	err = errors.Join(os.Mkdir(scratch, 0o755), os.Chown(scratch, uidOf[user], uidOf[user]), os.WriteFile(name, program, 0o755))
	if err != nil {
		t.Fatal(err)
	}
	leak, err := os.Open(c.host())
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{name, scratch, strconv.Itoa(uidOf[user]), c.hidden()}, c.environ()...)...)
	cmd.Env = []string{helperVar + "=bare", "SECRET=" + c.secret}
	cmd.ExtraFiles = []*os.File{leak}
	cmd.Stderr = testWriter{t}
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: all &^ b.keep}
	stdin, stdout, err := pipes(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return runningAttempt{stdin, stdout, func() (int, error) {
		err := cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() >= 0 {
			return exit.ExitCode(), nil
		}
		return 0, err
	}}
}

func init() {
	// <program> <directory> <uid> <mount's source> <environment>...: stands where the agent does in a sandbox, but
	// guards nothing. It has a secret in its environment and passes on a descriptor that is the host's.
	helpers["bare"] = func(args []string) error {
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
		if err := bareMounts(args[3]); err != nil {
			return err
		}
		uid, err := strconv.ParseUint(args[2], 10, 32)
		if err != nil {
			return err
		}
		cmd := exec.Command(args[0])
		cmd.Dir, cmd.Env = args[1], args[4:]
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.ExtraFiles = []*os.File{os.NewFile(3, "leak")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		err = cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() >= 0 {
			os.Exit(exit.ExitCode())
		}
		return err
	}
}

// bareMounts makes mounts of this mount namespace that no other sees.
func bareMounts(source string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if os.Getpid() == 1 {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	err := unix.Mount(source, "/mnt", "", unix.MS_BIND, "")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a host without /mnt
	}
	return err
}
