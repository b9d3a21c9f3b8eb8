//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// firstID is the first of the host's ids that bundles' users have. It lies outside of what Nestbox takes.
const firstID, ids = 1_000_000_000, 1 << 16

// bundles is a tool that runs bundles of the OCI's form. All such tools get the same.
func (b *bench) bundles(name, program, install, how string, flags ...string) *tool {
	root := filepath.Join(b.dir, program)
	command := func(ctx context.Context, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, program, append(append([]string{"--root", root}, flags...), args...)...)
	}
	list := func(ctx context.Context) ([]string, error) {
		out, err := command(ctx, "list", "--quiet").Output()
		return strings.Fields(string(out)), err
	}
	return &tool{
		name: name, program: program, install: install, how: how,
		open: func(context.Context) error { return os.Mkdir(root, 0o700) },
		run: func(ctx context.Context) error {
			id, dir, err := b.bundle("true")
			if err != nil {
				return err
			}
			return errors.Join(do(command(ctx, "run", "--bundle", dir, id)), os.RemoveAll(dir))
		},
		create: func(ctx context.Context) (*box, error) {
			id, dir, err := b.bundle("sleep", "1000000")
			if err != nil {
				return nil, err
			}
			if err := detached(command(ctx, "run", "--detach", "--bundle", dir, id)); err != nil {
				return nil, err
			}
			sb := b.commandBox(program, func(ctx context.Context, terminal bool, args ...string) *exec.Cmd {
				if terminal && program != "runsc" { // which sees a terminal by itself
					return command(ctx, append([]string{"exec", "--tty", id}, args...)...)
				}
				return command(ctx, append([]string{"exec", id}, args...)...)
			})
			sb.ops[pause.name] = timed(func(ctx context.Context) error { return do(command(ctx, "pause", id)) })
			sb.ops[resume.name] = timed(func(ctx context.Context) error { return do(command(ctx, "resume", id)) })
			sb.remove = func(ctx context.Context) error {
				return errors.Join(do(command(ctx, "delete", "--force", id)), os.RemoveAll(dir))
			}
			return sb, nil
		},
		list: func(ctx context.Context) (int, error) {
			names, err := list(ctx)
			return len(names), err
		},
		close: func(ctx context.Context) error {
			names, err := list(ctx)
			for _, id := range names {
				err = errors.Join(err, do(command(ctx, "delete", "--force", id)))
			}
			// gVisor mounts an empty network there, and leaves it.
			if merr := unix.Unmount(filepath.Join(root, "null-netns"), unix.MNT_DETACH); merr != nil && merr != unix.ENOENT && merr != unix.EINVAL {
				err = errors.Join(err, os.NewSyscallError("umount2", merr))
			}
			return err
		},
	}
}

// detached runs a command that leaves processes behind: what those have of its streams would keep do waiting.
func detached(cmd *exec.Cmd) error {
	stderr, err := os.CreateTemp("", "compare-")
	if err != nil {
		return err
	}
	defer stderr.Close()
	if err := os.Remove(stderr.Name()); err != nil {
		return err
	}
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		said := make([]byte, 300)
		n, _ := stderr.ReadAt(said, 0)
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, said[:n])
	}
	return nil
}

// bundle makes a bundle with a range of ids of its own, as a sandbox of Nestbox has.
func (b *bench) bundle(args ...string) (id, dir string, err error) {
	n := b.bundled.Add(1)
	id = fmt.Sprintf("compare-%d-%d", os.Getpid(), n)
	dir = filepath.Join(b.dir, id)
	data, err := json.Marshal(b.spec(n, args))
	if err != nil {
		return "", "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", "", err
	}
	return id, dir, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644)
}

// spec confines as Nestbox does by default (namespaces, capabilities, no_new_privs, limits), but for the seccomp filter,
// which these tools have none of by default: what that costs is in Nestbox's figures alone.
func (b *bench) spec(n uint32, args []string) *specs.Spec {
	files := uint64(defaults.OpenFiles)
	memory, processes, period := defaults.Memory, int64(defaults.Processes), uint64(100_000)
	quota := int64(defaults.CPUs * float64(period))
	mapping := []specs.LinuxIDMapping{{ContainerID: 0, HostID: firstID + n%8192*ids, Size: ids}}
	mount := func(target, kind, source string, options ...string) specs.Mount {
		return specs.Mount{Destination: target, Type: kind, Source: source, Options: append(options, "nosuid")}
	}
	spec := &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: b.rootfs, Readonly: true},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/usr/bin:/bin"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: capabilities, Effective: capabilities, Permitted: capabilities},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: files, Soft: files}},
		},
		Hostname: "sandbox",
		Mounts: []specs.Mount{
			mount("/proc", "proc", "proc", "noexec", "nodev"),
			mount("/dev", "tmpfs", "tmpfs", "mode=755", "size=65536k"),
			mount("/dev/pts", "devpts", "devpts", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
			mount("/dev/shm", "tmpfs", "shm", "noexec", "nodev", "mode=1777", "size=65536k"),
			mount("/dev/mqueue", "mqueue", "mqueue", "noexec", "nodev"),
			mount("/sys", "sysfs", "sysfs", "noexec", "nodev", "ro"),
			mount("/tmp", "tmpfs", "tmpfs", "nodev"),
			mount("/usr", "bind", "/usr", "rbind", "ro", "nodev"),
			mount("/scratch", "bind", b.scratch, "rbind", "rw", "nodev"),
		},
		Linux: &specs.Linux{
			UIDMappings: mapping, GIDMappings: mapping,
			Resources: &specs.LinuxResources{
				Memory: &specs.LinuxMemory{Limit: &memory, Swap: &memory},
				CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period},
				Pids:   &specs.LinuxPids{Limit: &processes},
			},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.UserNamespace, specs.MountNamespace, specs.PIDNamespace, specs.NetworkNamespace,
		specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace} {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
	}
	return spec
}

// newRootfs makes the directories and links of a root file system whose programs are the host's /usr.
func newRootfs(dir string) error {
	for _, name := range []string{"dev", "proc", "sys", "tmp", "usr", "scratch", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+name, filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
