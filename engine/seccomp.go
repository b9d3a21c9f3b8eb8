package engine

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"

	"github.com/nestbox/nestbox/engine/internal/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// SeccompUnconfined as CreateOptions.Seccomp leaves a sandbox every system call that the kernel has, those of
// foreign architectures too. It weakens isolation: most holes of the kernel lie where the default profile doesn't
// lead. It is known by its address; a copy of it is a profile like any other.
var SeccompUnconfined = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}

// DefaultSeccomp gives the profile that a sandbox gets which names none, to be changed and given to CreateOptions. It is for the
// architecture that the program runs on.
func DefaultSeccomp() *specs.LinuxSeccomp { return seccomp.Default(runtime.GOARCH) }

// defaultFilter compiles the default profile once.
var defaultFilter = sync.OnceValues(func() (seccomp.Program, error) {
	return seccomp.Compile(seccomp.Default(runtime.GOARCH), runtime.GOARCH)
})

// filter is what CreateOptions.Seccomp compiles to.
func filter(profile *specs.LinuxSeccomp) (seccomp.Program, error) {
	switch profile {
	case nil:
		return defaultFilter()
	case SeccompUnconfined:
		return seccomp.Program{}, nil
	}
	program, err := seccomp.Compile(profile, runtime.GOARCH)
	var serr *seccomp.Error
	if errors.As(err, &serr) {
		return program, invalid("Seccomp", "%v", serr)
	}
	return program, err
}

// filterError says what it means that the kernel took no program.
func filterError(errno syscall.Errno) error {
	if errno == syscall.ENOSYS || errno == syscall.EINVAL {
		return fmt.Errorf("%w: the kernel refuses seccomp filters (%v): use one with CONFIG_SECCOMP_FILTER, outside of a container that denies seccomp(2), "+
			"or do without, by engine.SeccompUnconfined", errors.ErrUnsupported, errno)
	}
	return fmt.Errorf("install seccomp filter: %w", errno)
}
