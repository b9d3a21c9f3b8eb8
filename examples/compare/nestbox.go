//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
)

// What the engine promises of a sandbox for which nothing is asked.
var (
	defaults     = engine.Limits{Memory: 512 << 20, CPUs: 1, Processes: 512, OpenFiles: 4096, DiskIOPS: 4000}
	capabilities = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
		"CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"}
)

// errPosture means that a sandbox isn't isolated as promised, and so that its figures are worth nothing.
var errPosture = errors.New("a sandbox isn't isolated as the defaults promise")

// checkPosture compares how the kernel confines a sandbox with what the defaults promise.
func checkPosture(p engine.Posture) error {
	var wrong []string
	must := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	must(p.Seccomp == "filter", "seccomp is %q", p.Seccomp)
	must(p.NoNewPrivileges, "no no_new_privs")
	must(p.UID >= 1<<16 && p.GID >= 1<<16 && len(p.Groups) == 0, "ids %d:%d %v", p.UID, p.GID, p.Groups)
	must(slices.Equal(p.Capabilities, capabilities), "capabilities %v", p.Capabilities)
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		must(p.Namespaces[name], "namespace %s is the host's", name)
	}
	limits := p.Limits
	limits.Disk = 0 // it is a file system, and no limit of the kernel's
	must(limits == defaults, "limits %+v", limits)
	for _, m := range p.Mounts {
		must(m.Target != "/" || m.NoSuid && m.NoDev, "the root's mount is %+v", m)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %s", errPosture, strings.Join(wrong, "; "))
	}
	return nil
}

// nestbox is this module's engine. Warm it claims sandboxes from a pool.
func (b *bench) nestbox(warm bool) *tool {
	n := &nestbox{bench: b}
	t := &tool{name: "Nestbox", how: "`eng.Create(ctx, engine.CreateOptions{})`",
		open: func(ctx context.Context) error { return n.open(ctx, 0) }, close: n.close, create: n.create, list: n.list}
	if warm {
		t.name, t.how = "Nestbox, warm", "the same, with `Options.Pool`, full when the clock starts"
		t.ready, t.open = n.ready, func(ctx context.Context) error { return n.ready(ctx, 1) }
	}
	return t
}

type nestbox struct {
	*bench
	eng    *engine.Engine
	pool   int    // its size; zero: none
	second *other // nil: not started yet
}

func (n *nestbox) open(ctx context.Context, pool int) (err error) {
	opts := engine.Options{Dir: n.state}
	if n.pool = pool; pool > 0 {
		opts.Pool = []engine.PoolSpec{{Size: pool}}
	}
	n.eng, err = engine.Open(ctx, opts)
	return err
}

func (n *nestbox) close(context.Context) (err error) {
	if n.second != nil {
		err = n.second.close()
	}
	if n.eng != nil {
		err = errors.Join(err, n.eng.Close())
	}
	return err
}

// ready waits until a pool of at least size is full. While sandboxes are held the pool must have been that large.
func (n *nestbox) ready(ctx context.Context, size int) error {
	if size = max(size, n.warm); size != n.pool {
		if n.eng != nil {
			if err := n.eng.Close(); err != nil {
				return err
			}
		}
		if err := n.open(ctx, size); err != nil {
			return err
		}
	}
	for {
		s := n.eng.PoolStats()[0]
		if s.Ready == s.Size {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.Err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (n *nestbox) list(ctx context.Context) (count int, err error) {
	for _, err := range n.eng.List(ctx, lease.Query{States: []lease.State{lease.Running}}) {
		if err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}

func (n *nestbox) create(ctx context.Context) (*box, error) {
	sb, err := n.eng.Create(ctx, engine.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return &box{ops: n.ops(sb), remove: func(context.Context) error { return sb.Close() },
		check: func(ctx context.Context) error {
			p, err := sb.Posture(ctx)
			if err != nil {
				return err
			}
			return checkPosture(p)
		}}, nil
}

func (n *nestbox) ops(sb *engine.Sandbox) map[string]op {
	files := sb.FS()
	return map[string]op{
		execTrue.name:   timed(func(ctx context.Context) error { return sb.CommandContext(ctx, "true").Run() }),
		firstByte.name:  func(ctx context.Context) (time.Duration, error) { return onPTY(sb.CommandContext(ctx, "echo")) },
		writeSmall.name: timed(func(context.Context) error { return files.WriteFile("small", small, 0o644) }),
		readSmall.name:  timed(func(context.Context) error { _, err := files.ReadFile("small"); return err }),
		writeLarge.name: timed(func(context.Context) error {
			f, err := files.Create("large")
			return n.fill(f, err)
		}),
		readLarge.name: timed(func(context.Context) error {
			f, err := files.Open("large")
			return drain(f, err)
		}),
		pause.name:     timed(sb.Pause),
		resume.name:    timed(sb.Resume),
		reconnect.name: func(context.Context) (time.Duration, error) { return n.reconnect(sb.ID()) },
	}
}

// onPTY starts a command on a terminal, and tells when its first byte is there.
func onPTY(cmd *engine.Cmd) (time.Duration, error) {
	start := time.Now()
	pty, err := cmd.StartPTY(engine.WindowSize{})
	if err != nil {
		return 0, err
	}
	_, err = pty.Read(make([]byte, 1))
	took := time.Since(start)
	return took, errors.Join(err, cmd.Wait(), pty.Close())
}

// reconnect has a second process open a handle on a sandbox.
func (n *nestbox) reconnect(id string) (_ time.Duration, err error) {
	if n.second == nil {
		if n.second, err = startOther(n.state); err != nil {
			return 0, err
		}
	}
	return n.second.reconnect(id)
}

// An other is a second process of this program.
type other struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Scanner
}

// otherArg as the first argument has this program be an other; the second is the state directory.
const otherArg = "reconnect-to-those-in"

func startOther(state string) (*other, error) {
	cmd := exec.Command("/proc/self/exe", otherArg, state)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &other{cmd, stdin, bufio.NewScanner(stdout)}, cmd.Start()
}

func (o *other) reconnect(id string) (time.Duration, error) {
	if _, err := fmt.Fprintln(o.stdin, id); err != nil {
		return 0, err
	}
	if !o.answers.Scan() {
		return 0, errors.Join(errors.New("the second process has ended"), o.answers.Err())
	}
	nanos, err := strconv.ParseInt(o.answers.Text(), 10, 64)
	return time.Duration(nanos), err
}

func (o *other) close() error { return errors.Join(o.stdin.Close(), o.cmd.Wait()) }

// beOther opens and closes a handle on each sandbox whose ID it reads, and writes what the opening took.
func beOther(ctx context.Context, state string, r io.Reader, w io.Writer) error {
	eng, err := engine.Open(ctx, engine.Options{Dir: state})
	if err != nil {
		return err
	}
	defer eng.Close()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		start := time.Now()
		sb, err := eng.Reconnect(ctx, lines.Text())
		took := time.Since(start)
		if err != nil {
			return err
		}
		if err := sb.Close(); err != nil {
			return err
		}
		fmt.Fprintln(w, took.Nanoseconds())
	}
	return nil
}
