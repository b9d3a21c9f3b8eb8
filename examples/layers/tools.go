//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/nestbox/nestbox/engine"
)

// nobody is a user other than root, whom bubblewrap is made for.
const nobody = 65534

// tools are those that can be compared.
func (b *bench) tools(eng *engine.Engine) []tool {
	return []tool{
		{name: "Nestbox", probe: func(ctx context.Context, args []string) (process, error) { return b.nestbox(ctx, eng, args) }},
		b.bundles("runc", "runc", "apt-get install runc", false),
		b.images("docker", "apt-get install docker.io, and start dockerd"),
		b.images("podman", "apt-get install podman"),
		{name: "bubblewrap", program: "bwrap", install: "apt-get install bubblewrap", probe: b.bubblewrap},
		b.bundles("gVisor", "runsc", "CGO_ENABLED=0 go install gvisor.dev/gvisor/runsc@latest", true),
	}
}

// host is for no tool: the probe runs without a sandbox.
func (b *bench) host(ctx context.Context, args []string) (process, error) {
	return command(ctx, b.probe, args...), nil
}

// nestbox makes a sandbox, which ends with the engine at the latest.
func (b *bench) nestbox(ctx context.Context, eng *engine.Engine, args []string) (process, error) {
	sb, err := eng.Create(ctx, engine.CreateOptions{})
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(b.probe)
	if err != nil {
		return nil, err
	}
	if err := sb.FS().WriteFile("/opt/probe", data, 0o755); err != nil {
		return nil, err
	}
	return sb.Command("/opt/probe", args...), nil
}

// bubblewrap has no configuration but its arguments; these are usual ones.
func (b *bench) bubblewrap(ctx context.Context, args []string) (process, error) {
	cmd := command(ctx, "bwrap", append([]string{"--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr",
		"--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--symlink", "usr/bin", "/bin",
		"--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", b.probe, "/probe", "/probe"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd, nil
}

// bundles is a tool that runs bundles, with the configuration that it writes itself.
func (b *bench) bundles(name, program, install string, kernel bool) tool {
	return tool{name: name, kernel: kernel, program: program, install: install, probe: func(ctx context.Context, args []string) (process, error) {
		bundle := filepath.Join(b.dir, args[0])
		if err := os.Mkdir(bundle, 0o755); err != nil {
			return nil, err
		}
		if err := command(ctx, program, "spec", "--bundle", bundle).Run(); err != nil {
			return nil, fmt.Errorf("%s spec: %w", program, err)
		}
		if err := b.edit(filepath.Join(bundle, "config.json"), args); err != nil {
			return nil, err
		}
		return command(ctx, program, "run", "--bundle", bundle, args[0]), nil
	}}
}

// edit has a bundle's configuration run the probe, and nothing else.
func (b *bench) edit(path string, args []string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	process, _ := config["process"].(map[string]any)
	root, _ := config["root"].(map[string]any)
	if process == nil || root == nil {
		return fmt.Errorf("%s: there is no process or no root", path)
	}
	process["args"], process["terminal"], root["path"] = append([]string{"/probe"}, args...), false, b.rootfs
	if data, err = json.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// images is a tool that runs images.
func (b *bench) images(program, install string) tool {
	const image = "nestbox-layers"
	return tool{name: program, program: program, install: install,
		prepare: func(ctx context.Context) (remove func() error, err error) {
			var archive bytes.Buffer
			tw := tar.NewWriter(&archive)
			if err := errors.Join(tw.AddFS(os.DirFS(b.rootfs)), tw.Close()); err != nil {
				return nil, err
			}
			cmd := command(ctx, program, "import", "-", image)
			cmd.Stdin = &archive
			return command(ctx, program, "rmi", image).Run, cmd.Run()
		},
		probe: func(ctx context.Context, args []string) (process, error) {
			return command(ctx, program, append([]string{"run", "--rm", "--interactive", image, "/probe"}, args...)...), nil
		},
	}
}

// command is one of the host's, that says on its standard error what it has to say.
func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = os.Stderr
	return cmd
}
