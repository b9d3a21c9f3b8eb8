//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"os/exec"
)

// bubblewrap runs one command in each sandbox, so that there is nothing to connect to again.
func (b *bench) bubblewrap() *tool {
	command := func(ctx context.Context, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "bwrap", append([]string{"--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr",
			"--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
			"--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"}, args...)...)
	}
	return &tool{
		name: "bubblewrap", program: "bwrap", install: "apt-get install bubblewrap",
		how: "`bwrap --unshare-all --ro-bind /usr /usr …`: no limits, no seccomp filter, the caller's user id",
		run: func(ctx context.Context) error { return do(command(ctx, "true")) },
		create: func(ctx context.Context) (*box, error) {
			cmd := command(context.WithoutCancel(ctx), "sh", "-c", "echo; exec sleep 1000000")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				return nil, err
			}
			if err := cmd.Start(); err != nil {
				return nil, err
			}
			remove := func(context.Context) error {
				if err := cmd.Process.Kill(); err != nil {
					return err
				}
				_, err := io.Copy(io.Discard, stdout) // until the last process in the sandbox has gone too
				_ = cmd.Wait()                        // it was killed
				return err
			}
			if _, err = io.ReadFull(stdout, make([]byte, 1)); err != nil {
				return nil, errors.Join(err, remove(ctx))
			}
			return &box{remove: remove}, nil
		},
	}
}
