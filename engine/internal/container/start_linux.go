//go:build linux && cgo

package container

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	_ "github.com/opencontainers/cgroups/devices" // without it no device rule can be set
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"golang.org/x/sys/unix"
)

// Supported is nil: this program was built with all that the package needs.
func Supported() error { return nil }

// Process is the first process of a sandbox that this host process created.
type Process struct {
	PID int
	p   *libcontainer.Process
}

// Start creates a sandbox's namespaces and cgroup and starts the agent in them. It borrows listen, the
// agent's socket, and agent, its program.
//
// prepare is called first, on a thread with a mount namespace of its own in which nothing reaches the
// host's. It mounts the root file system at cfg.Root. The thread ends with Start, and with it what no
// sandbox uses.
func Start(cfg Config, listen, agent *os.File, prepare func() error) (*Process, error) {
	rememberCgroupRoot()
	var p *Process
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := privateMounts()
		if err == nil {
			err = prepare()
		}
		if err == nil {
			p, err = start(cfg, listen, agent)
		}
		done <- err
	}()
	return p, <-done
}

// privateMounts gives the calling thread a mount namespace, see unshare(2).
func privateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return nil
}

func start(cfg Config, listen, agent *os.File) (_ *Process, err error) {
	spec := cfg.Spec()
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:   cfg.ID,
		NoNewKeyring: true,
		Spec:         spec,
	})
	if err != nil {
		return nil, fmt.Errorf("convert spec: %w", err)
	}
	config.Labels = nil // among them is the host program's working directory
	c, err := libcontainer.Create(cfg.StateDir, cfg.ID, config)
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	p := &libcontainer.Process{
		Args:       spec.Process.Args,
		Cwd:        spec.Process.Cwd,
		Init:       true,
		LogLevel:   "2", // logrus.ErrorLevel; it ends up in the error of Run
		Stdin:      null,
		Stdout:     null,
		Stderr:     null,
		ExtraFiles: files(listen, agent),
	}
	for _, r := range spec.Process.Rlimits {
		p.Rlimits = append(p.Rlimits, rlimit(r.Type, r.Soft, r.Hard))
	}
	if err := c.Run(p); err != nil {
		return nil, fmt.Errorf("run agent: %w", err)
	}
	pid, err := p.Pid()
	if err != nil {
		return nil, err
	}
	return &Process{PID: pid, p: p}, nil
}

func rlimit(name string, soft, hard uint64) configs.Rlimit {
	typ := unix.RLIMIT_CORE
	if name == "RLIMIT_NOFILE" {
		typ = unix.RLIMIT_NOFILE
	}
	return configs.Rlimit{Type: typ, Soft: soft, Hard: hard}
}

// Wait waits until the agent has ended and forgets it.
func (p *Process) Wait() {
	_, _ = p.p.Wait() // how it ended says nothing: the lease does
}

// UserNamespace makes a user namespace with a sandbox's range of ids, for idmapped mounts. It borrows the
// agent's program.
//
// A namespace needs a process to make it: the agent, told to do nothing, which is killed once the namespace
// is open, and ends by itself if this process dies before.
func UserNamespace(agent *os.File, uid uint32) (ns *os.File, err error) {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(uid), Size: IDs}}
	stdin, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer alive.Close()
	defer stdin.Close()
	p, err := os.StartProcess("/proc/self/fd/"+strconv.Itoa(int(agent.Fd())), []string{"agent", Idle}, &os.ProcAttr{
		Files: []*os.File{stdin},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: ids,
			GidMappings: ids,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("create user namespace: %w", err)
	}
	defer func() {
		kerr := p.Kill()
		_, werr := p.Wait()
		err = errors.Join(err, kerr, werr)
	}()
	return os.Open("/proc/" + strconv.Itoa(p.Pid) + "/ns/user")
}
