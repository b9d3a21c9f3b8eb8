//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// image is the name of the image, and the label of containers.
const image = "nestbox-compare"

// images is a tool that runs images: docker, or what is like it. It gets an image without programs, and the host's /usr.
func (b *bench) images(program, install string, remove []string, flags ...string) *tool {
	command := func(ctx context.Context, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, program, append(flags[:len(flags):len(flags)], args...)...)
	}
	options := []string{"--network", "none", "--label", image, "--read-only", "--tmpfs", "/tmp",
		"--memory", fmt.Sprint(defaults.Memory), "--cpus", fmt.Sprint(defaults.CPUs), "--pids-limit", fmt.Sprint(defaults.Processes),
		"--ulimit", fmt.Sprintf("nofile=%d:%d", defaults.OpenFiles, defaults.OpenFiles), "--ulimit", "nproc=1000:1000",
		"--volume", "/usr:/usr:ro", "--volume", b.scratch + ":/scratch"}
	run := func(ctx context.Context, how string, args ...string) *exec.Cmd {
		return command(ctx, append(append([]string{"run", how}, options...), args...)...)
	}
	list := func(ctx context.Context) ([]string, error) {
		out, err := command(ctx, "ps", "--all", "--quiet", "--filter", "label="+image).Output()
		return strings.Fields(string(out)), err
	}
	return &tool{
		name: program, program: program, install: install,
		how: "`" + program + " run --network none --read-only -v /usr:/usr:ro`, with Nestbox's limits: its own seccomp profile, the host's user ids",
		open: func(ctx context.Context) error {
			var archive bytes.Buffer
			tw := tar.NewWriter(&archive)
			if err := errors.Join(tw.AddFS(os.DirFS(b.rootfs)), tw.Close()); err != nil {
				return err
			}
			cmd := command(ctx, "import", "-", image)
			cmd.Stdin = &archive
			return do(cmd)
		},
		run: func(ctx context.Context) error { return do(run(ctx, "--rm", image, "true")) },
		create: func(ctx context.Context) (*box, error) {
			name := fmt.Sprintf("compare-%d-%d", os.Getpid(), b.bundled.Add(1))
			if err := detached(run(ctx, "--detach", "--name", name, image, "sleep", "1000000")); err != nil {
				return nil, err
			}
			sb := b.commandBox(program, func(ctx context.Context, terminal bool, args ...string) *exec.Cmd {
				how := "--interactive"
				if terminal {
					how = "--tty"
				}
				return command(ctx, append([]string{"exec", how, name}, args...)...)
			})
			sb.ops[pause.name] = timed(func(ctx context.Context) error { return do(command(ctx, "pause", name)) })
			sb.ops[resume.name] = timed(func(ctx context.Context) error { return do(command(ctx, "unpause", name)) })
			sb.remove = func(ctx context.Context) error {
				return do(command(ctx, append(remove[:len(remove):len(remove)], name)...))
			}
			return sb, nil
		},
		list: func(ctx context.Context) (int, error) {
			names, err := list(ctx)
			return len(names), err
		},
		close: func(ctx context.Context) error {
			names, err := list(ctx)
			if err != nil { // no daemon, and so no image
				return nil
			}
			if len(names) > 0 {
				err = do(command(ctx, append(remove[:len(remove):len(remove)], names...)...))
			}
			return errors.Join(err, do(command(ctx, "rmi", "--force", image)))
		},
	}
}

func (b *bench) docker() *tool {
	return b.images("docker", "apt-get install docker.io, and start dockerd", []string{"rm", "--force"})
}

// podman has a place of its own, so that the images and containers of the host's users stay as they are.
func (b *bench) podman() *tool {
	flags := []string{"--root", filepath.Join(b.dir, "podman"), "--runroot", filepath.Join(b.dir, "podman-run"), "--storage-driver", "vfs"}
	if _, err := exec.LookPath("runc"); err == nil {
		flags = append(flags, "--runtime", "runc") // crun refuses some hosts' cgroups
	}
	return b.images("podman", "apt-get install podman", []string{"rm", "--force", "--time", "0"}, flags...)
}
