package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/container"
	"github.com/nestbox/nestbox/engine/internal/seccomp"
	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/rootfs"
)

// stepHook, in tests, is called after each step of creating and removing a sandbox.
var stepHook = func(step string) {}

// Create creates a sandbox and gives a handle on it, or claims one of the pool. An error leaves nothing behind; a
// context that is done meanwhile is one.
func (e *Engine) Create(ctx context.Context, opts CreateOptions) (_ *Sandbox, err error) {
	defer func() { err = opError("create", "", err) }()
	if err := e.begin(); err != nil {
		return nil, err
	}
	defer e.using.Done()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	o, err := e.plan(opts)
	if err != nil {
		return nil, err
	}
	for fresh := false; ; fresh = true {
		u, err := e.pool.take(ctx, o, fresh)
		if err != nil {
			return nil, err
		}
		sb, err := u.claim(ctx, o)
		if err == nil {
			e.pool.hit(u)
			return sb, nil
		}
		err = errors.Join(err, u.discard())
		if u.stock == nil || ctx.Err() != nil {
			return nil, err
		}
		e.log.Warn("claim from the pool", "error", err) // others may fare no better: one is made
	}
}

// order is what was asked for, checked, with the engine's defaults and not yet the template's.
type order struct {
	opts   CreateOptions
	limits Limits
	filter seccomp.Program // empty: none
}

// plan checks what is asked for, and changes nothing.
func (e *Engine) plan(opts CreateOptions) (o order, err error) {
	if err := opts.check(e.maxKeepAlive); err != nil {
		return o, err
	}
	if err := container.CheckLabels(opts.AppArmor, opts.SELinux); err != nil {
		return o, err
	}
	opts.Template = cmp.Or(opts.Template, rootfs.Base)
	opts.Hostname = cmp.Or(opts.Hostname, "sandbox")
	if o.limits, err = opts.Limits.or(e.limits); err != nil {
		return o, err
	}
	if o.limits.Disk < 0 {
		if n := opts.Limits.DiskIOPS; n > 0 {
			return o, invalid("Limits.DiskIOPS", "%d; without Limits.Disk the sandbox has no disk of its own", n)
		}
		o.limits.DiskIOPS = -1
	}
	o.opts = opts
	o.filter, err = filter(opts.Seccomp)
	return o, err
}

// fits tells whether a sandbox that was made for o can be claimed for what p asks. What can't be changed any more must
// be the same; open files can be lowered.
func (o order) fits(p order) bool {
	a, b := o.opts, p.opts
	return a.Template == b.Template && a.Network == b.Network && a.AppArmor == b.AppArmor && a.SELinux == b.SELinux &&
		o.limits.Disk == p.limits.Disk && openFiles(p.limits) <= openFiles(o.limits) &&
		slices.Equal(a.Mounts, b.Mounts) && o.filter.Equal(p.filter)
}

// openFiles is a limit that can be compared.
func openFiles(l Limits) uint {
	return uint(l.OpenFiles) // negative, which is none: above all others
}

// config is what the agent is told. How long the sandbox lives isn't said before it is claimed.
func (o order) config(t rootfs.Template) wire.Config {
	return wire.Config{
		User:      cmp.Or(o.opts.User, t.Config.User),
		Dir:       cmp.Or(o.opts.Dir, t.Config.Dir),
		Env:       slices.Concat(t.Config.Env, o.opts.Env),
		OpenFiles: uint64(max(0, o.limits.OpenFiles)),
	}
}

// configError says what the agent's error means for the options.
func (o order) configError(err error) error {
	var aerr *agent.Error
	if !errors.As(err, &aerr) {
		return err
	}
	switch aerr.Stage {
	case wire.StageUser:
		return invalid("User", "%.64q is not in the template's /etc/passwd or /etc/group", o.opts.User)
	case wire.StageSeccomp:
		return filterError(aerr.Errno)
	case wire.StageChdir:
		return &InvalidError{"Dir", fmt.Sprintf("%.64q can't be used: %v", o.opts.Dir, aerr.Errno)}
	}
	return err
}
