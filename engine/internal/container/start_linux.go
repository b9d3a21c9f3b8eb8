//go:build linux && cgo

package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	_ "github.com/opencontainers/cgroups/devices" // without it no device rule can be set
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"golang.org/x/sys/unix"
)

// Supported is nil: this program was built with all that the package needs.
func Supported() error { return nil }

// Start creates a sandbox's cgroup, and namespaces beside userNS, and starts the agent in them. It borrows userNS,
// listen, the agent's socket, and agent, its program.
//
// prepare is called first, on a thread with a mount namespace of its own in which nothing reaches the
// host's. It mounts the root file system at cfg.Root. The thread ends with Start, and with it what no
// sandbox uses.
func Start(cfg Config, userNS, listen, agent *os.File, prepare func() error) (pid int, err error) {
	rememberCgroupRoot()
	err = onOwnThread(func() error {
		err := privateMounts()
		if err == nil {
			err = prepare()
		}
		if err == nil {
			err = scope()
		}
		if err == nil {
			pid, err = start(cfg, userNS, listen, agent)
		}
		return err
	})
	return pid, err
}

// onOwnThread calls f on a thread that ends with it, whatever f does to it. The main thread can't end: on that one,
// Go would only park the goroutine, and with it the process's namespaces. It is held until another thread is found.
func onOwnThread(f func() error) error {
	done := make(chan error)
	var try func(found chan<- struct{})
	try = func(found chan<- struct{}) {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			another := make(chan struct{})
			go try(another)
			<-another
			runtime.UnlockOSThread()
			close(found)
			return
		}
		close(found)
		done <- f() // and the lock is never given back
	}
	go try(make(chan struct{}))
	return <-done
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

func start(cfg Config, userNS, listen, agent *os.File) (pid int, err error) {
	if err := showUserNS(userNS); err != nil {
		return 0, fmt.Errorf("mount user namespace: %w", err)
	}
	config, err := cfg.config(userNSPath)
	if err != nil {
		return 0, fmt.Errorf("convert spec: %w", err)
	}
	c, err := libcontainer.Create(cfg.StateDir, cfg.ID, config)
	if err != nil {
		return 0, fmt.Errorf("create sandbox: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	p := &libcontainer.Process{
		Args:       []string{agentPath},
		Cwd:        "/",
		Init:       true,
		LogLevel:   "2", // logrus.ErrorLevel; it ends up in the error of Run
		Stdin:      null,
		Stdout:     null,
		Stderr:     null,
		ExtraFiles: files(listen, agent),
	}
	if err := c.Run(p); err != nil {
		return 0, fmt.Errorf("run agent: %w", err)
	}
	return p.Pid()
}

// config is cfg for libcontainer, with the user namespace at a path.
func (cfg Config) config(userNS string) (*configs.Config, error) {
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:   cfg.ID,
		NoNewKeyring: false, // or the sandbox had the host program's session keyring, see session-keyring(7)
		Spec:         cfg.Spec(),
	})
	if err != nil {
		return nil, err
	}
	config.Namespaces.Add(configs.NEWUSER, userNS)
	config.UIDMappings = []configs.IDMap{{HostID: int64(cfg.UID), Size: IDs}}
	config.GIDMappings = config.UIDMappings
	// Without this libcontainer enters the sandbox's mounts on a thread that may be the main one, to open sources
	// of mounts, of which there are none. What else it leaves out is to drop groups, which the agent does.
	config.RootlessEUID = true
	config.AppArmorProfile, config.ProcessLabel = cfg.AppArmor, cfg.SELinux
	config.Labels = nil // among them is the host program's working directory
	return config, nil
}

// userNSPath is where each thread that starts a sandbox finds its user namespace. libcontainer takes no path with a comma,
// which those of the state directory may have.
const userNSPath = "/run/nestbox/user"

// showUserNS mounts a user namespace at userNSPath, for the processes of this thread: Landlock keeps those from
// /proc/<pid>/fd of this one.
func showUserNS(ns *os.File) error {
	if err := os.MkdirAll(filepath.Dir(userNSPath), 0o700); err != nil {
		return err
	}
	at, err := os.OpenFile(userNSPath, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), userNSPath, "", unix.MS_BIND, "")
	return errors.Join(os.NewSyscallError("mount", err), at.Close())
}
