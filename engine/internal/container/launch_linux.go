//go:build linux && cgo

package container

/*
#include <stdlib.h>
#include "launch.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// launcher runs launch.c for a sandbox.
type launcher struct {
	c      *C.struct_launch
	memory []unsafe.Pointer // C's, to be freed
	goR    *os.File         // the process waits for it
	goW    *os.File
}

// newLauncher prepares to launch what config says, in cgroups that the first process enters by writing to files. It borrows
// the files until close.
func newLauncher(config *configs.Config, cgroups [][2]string, userNS, listen, agent *os.File) (l *launcher, err error) {
	l = &launcher{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.goR, l.goW, err = os.Pipe(); err != nil {
		return nil, err
	}
	caps, err := capabilitySet(config.Capabilities.Bounding)
	if err != nil {
		return nil, err
	}
	c := (*C.struct_launch)(l.alloc(unsafe.Sizeof(C.struct_launch{})))
	l.c = c
	c._go, c.user_ns = C.int(l.goR.Fd()), C.int(userNS.Fd())
	c.fds = [2]C.int{C.int(listen.Fd()), C.int(agent.Fd())}
	c.cgroups = l.settings(cgroups)
	c.flags = C.long(config.Namespaces.CloneFlags())
	c.root, c.hostname = l.text(config.Rootfs), l.text(config.Hostname)
	c.mounts = l.mounts(config.Mounts)
	c.devices = l.devices(config)
	c.sysctls = l.settings(sysctls(config.Sysctl))
	c.labels = l.settings(labels(config))
	c.masked, c.readonly = l.texts(config.MaskPaths), l.texts(config.ReadonlyPaths)
	c.caps = C.ulonglong(caps)
	c.argv, c.envp = l.texts([]string{agentPath}), l.texts(agentEnv)
	c.stacks = (*C.char)(l.alloc(2 * C.LAUNCH_STACK))
	return l, nil
}

func (l *launcher) close() {
	for _, f := range []*os.File{l.goR, l.goW} {
		if f != nil {
			_ = f.Close()
		}
	}
	for _, p := range l.memory {
		C.free(p)
	}
}

// run launches the program. ready is given the number of a process that waits, to put it, and so all that it starts, into
// a cgroup. The program's process is this one's child.
func (l *launcher) run(ready func(pid int) error) (pid int, err error) {
	defer keepDumpable()()
	waiting := int(C.launch_start(l.c))
	if waiting < 0 {
		return 0, os.NewSyscallError("clone", syscall.Errno(-waiting))
	}
	if err := ready(waiting); err != nil {
		return 0, errors.Join(err, end(waiting))
	}
	if _, err := l.goW.Write([]byte{0}); err != nil {
		return 0, errors.Join(err, end(waiting))
	}
	if err := await(waiting); err != nil {
		return 0, err
	}
	pid = int(l.c.pid)
	switch {
	case l.c.err == 0 && pid > 0:
		return pid, nil
	case l.c.err == 0:
		return 0, errors.New("the process was killed")
	case pid <= 0:
		return 0, l.failure()
	}
	return 0, errors.Join(l.failure(), await(pid))
}

// failure is the error that the process met.
func (l *launcher) failure() error {
	err := os.NewSyscallError(C.GoString(l.c.step), syscall.Errno(l.c.err))
	if l.c.what != nil {
		return fmt.Errorf("%s: %w", C.GoString(l.c.what), err)
	}
	return err
}

// alloc gives memory of C's, which is zero.
func (l *launcher) alloc(size uintptr) unsafe.Pointer {
	p := C.calloc(1, C.size_t(size))
	l.memory = append(l.memory, p)
	return p
}

func (l *launcher) text(s string) *C.char {
	p := C.CString(s)
	l.memory = append(l.memory, unsafe.Pointer(p))
	return p
}

// texts gives a list of strings, with a null pointer behind.
func (l *launcher) texts(list []string) **C.char {
	p := (**C.char)(l.alloc(uintptr(len(list)+1) * unsafe.Sizeof((*C.char)(nil))))
	for i, s := range list {
		unsafe.Slice(p, len(list))[i] = l.text(s)
	}
	return p
}

// settings gives paths and values, with a null entry behind.
func (l *launcher) settings(values [][2]string) *C.struct_setting {
	p := (*C.struct_setting)(l.alloc(uintptr(len(values)+1) * unsafe.Sizeof(C.struct_setting{})))
	for i, v := range values {
		unsafe.Slice(p, len(values))[i] = C.struct_setting{path: l.text(v[0]), value: l.text(v[1])}
	}
	return p
}

func (l *launcher) mounts(mounts []*configs.Mount) *C.struct_own_mount {
	p := (*C.struct_own_mount)(l.alloc(uintptr(len(mounts)+1) * unsafe.Sizeof(C.struct_own_mount{})))
	for i, m := range mounts {
		unsafe.Slice(p, len(mounts))[i] = C.struct_own_mount{
			source: l.text(m.Source),
			_type:  l.text(m.Device),
			data:   l.text(m.Data),
			at:     l.text(strings.TrimPrefix(m.Destination, "/")),
			flags:  C.ulong(m.Flags),
		}
	}
	return p
}

// devices are those that every sandbox has. /dev/ptmx is a link.
func (l *launcher) devices(config *configs.Config) **C.char {
	var paths []string
	for _, d := range config.Devices {
		if d.Path != "/dev/ptmx" {
			paths = append(paths, d.Path)
		}
	}
	return l.texts(paths)
}

// sysctls gives the files for kernel parameters by their names.
func sysctls(values map[string]string) (list [][2]string) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		list = append(list, [2]string{"/proc/sys/" + strings.ReplaceAll(name, ".", "/"), values[name]})
	}
	return list
}

// labels gives the files of proc_pid_attr(5) that say under which labels the program is executed.
func labels(config *configs.Config) (list [][2]string) {
	if config.AppArmorProfile != "" {
		list = append(list, [2]string{"/proc/self/attr/apparmor/exec", "exec " + config.AppArmorProfile})
	}
	if config.ProcessLabel != "" {
		list = append(list, [2]string{"/proc/self/attr/exec", config.ProcessLabel})
	}
	return list
}

// capabilitySet gives the bits of capabilities by their names.
func capabilitySet(names []string) (set uint64, err error) {
	for _, name := range names {
		i := slices.IndexFunc(capability.ListKnown(), func(c capability.Cap) bool { return "CAP_"+strings.ToUpper(c.String()) == name })
		if i < 0 {
			return 0, fmt.Errorf("bug: no capability is called %s", name)
		}
		set |= 1 << capability.ListKnown()[i]
	}
	return set, nil
}

// await waits for a process of launch.c.
func await(pid int) error {
	for {
		_, err := unix.Wait4(pid, nil, unix.WALL, nil)
		if err != unix.EINTR {
			return os.NewSyscallError("wait4", err)
		}
	}
}
