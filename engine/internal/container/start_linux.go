//go:build linux && cgo

package container

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	_ "github.com/opencontainers/cgroups/devices" // without it no device rule can be set
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Supported is nil: this program was built with all that the package needs.
func Supported() error { return nil }

// Start creates a sandbox's cgroup, and namespaces beside userNS, and starts the agent in them. It borrows userNS,
// listen, the agent's socket, and agent, its program. With an error there may be a cgroup.
//
// prepare is called on a thread with a mount namespace of its own in which nothing reaches the host's, while the cgroup
// is made. It mounts the root file system at cfg.Root. The thread ends with Start, and with it what no sandbox uses.
func Start(cfg Config, userNS, listen, agent *os.File, prepare func() error) (pid int, err error) {
	rememberCgroupRoot()
	config, err := cfg.config()
	if err != nil {
		return 0, fmt.Errorf("convert spec: %w", err)
	}
	m, err := managerOf(config.Cgroups)
	if err != nil {
		return 0, err
	}
	var enter [][2]string
	var making errgroup.Group
	making.Go(func() (err error) {
		enter, err = makeCgroup(m, config.Cgroups.Resources)
		return err
	})
	err = onOwnThread(func() error {
		err := privateMounts()
		if err == nil {
			err = prepare()
		}
		if err == nil {
			err = scope()
		}
		if err = errors.Join(err, making.Wait()); err != nil {
			return err
		}
		l, err := newLauncher(config, enter, userNS, listen, agent)
		if err != nil {
			return err
		}
		defer l.close()
		if pid, err = l.run(func(pid int) error { return enterCgroup(m, pid) }); err != nil {
			return fmt.Errorf("start sandbox: %w", err)
		}
		return nil
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

// config is cfg in libcontainer's terms, which has taken the options of mounts apart, and the rules for devices.
func (cfg Config) config() (*configs.Config, error) {
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: cfg.ID, Spec: cfg.Spec()})
	if err != nil {
		return nil, err
	}
	config.AppArmorProfile, config.ProcessLabel = cfg.AppArmor, cfg.SELinux
	return config, nil
}
