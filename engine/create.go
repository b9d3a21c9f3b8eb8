package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/container"
	"github.com/nestbox/nestbox/engine/internal/seccomp"
	"github.com/nestbox/nestbox/engine/internal/tap"
	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/lease"
	"github.com/nestbox/nestbox/rootfs"
)

// stepHook, in tests, is called after each step of creating and removing a sandbox.
var stepHook = func(step string) {}

// creation is a sandbox on its way.
type creation struct {
	e      *Engine
	id     string
	opts   CreateOptions
	limits Limits
	tmpl   rootfs.Template
	filter seccomp.Program // empty: none
	dir    *os.File        // with the lock; the handle's in the end
	facts  facts
}

// Create creates a sandbox and gives a handle on it. An error leaves nothing behind; a context that is done
// meanwhile is one.
func (e *Engine) Create(ctx context.Context, opts CreateOptions) (_ *Sandbox, err error) {
	defer func() { err = opError("create", "", err) }()
	if err := e.begin(); err != nil {
		return nil, err
	}
	defer e.using.Done()
	c, err := e.plan(ctx, opts)
	if err != nil {
		return nil, err
	}
	sb, err := c.run(ctx)
	if err != nil {
		return nil, errors.Join(err, c.undo())
	}
	return sb, nil
}

// plan checks what is asked for, and changes nothing.
func (e *Engine) plan(ctx context.Context, opts CreateOptions) (*creation, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := opts.check(e.maxKeepAlive); err != nil {
		return nil, err
	}
	limits, err := opts.Limits.or(e.limits)
	if err != nil {
		return nil, err
	}
	program, err := filter(opts.Seccomp)
	if err != nil {
		return nil, err
	}
	opts.Template = cmp.Or(opts.Template, rootfs.Base)
	tmpl, err := e.catalog.Lookup(opts.Template)
	if err != nil {
		return nil, err
	}
	opts.Hostname = cmp.Or(opts.Hostname, "sandbox")
	opts.User = cmp.Or(opts.User, tmpl.Config.User)
	opts.Dir = cmp.Or(opts.Dir, tmpl.Config.Dir)
	if opts.Network == NetworkHost && tmpl.Name == rootfs.Base {
		opts.Mounts = append(rootfs.ResolverMounts(), opts.Mounts...)
	}
	id, err := newID()
	if err != nil {
		return nil, err
	}
	return &creation{e: e, id: id, opts: opts, limits: limits, tmpl: tmpl, filter: program}, nil
}

// run takes the steps. What each leaves is found by its directory, the lock on which is free when this
// process is no more.
func (c *creation) run(ctx context.Context) (*Sandbox, error) {
	path := c.e.state.sandbox(c.id)
	var err error
	if c.dir, err = c.e.state.makeSandbox(c.id); err != nil {
		return nil, err
	}
	stepHook("create directory")
	if c.facts.UID, err = ids.take(path); err != nil {
		return nil, err
	}
	stepHook("create ids")
	if err := rootfs.MakeTree(path, c.facts.UID, max(0, c.limits.Disk)); err != nil {
		return nil, err
	}
	stepHook("create tree")
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := c.start(path); err != nil {
		return nil, err
	}
	stepHook("create start")
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	client, err := agent.Dial(c.dir)
	if err != nil {
		return nil, err
	}
	sb, err := c.hold(ctx, client)
	if err != nil {
		client.Close(ErrClosed)
		return nil, err
	}
	return sb, nil
}

// start makes namespaces, mounts and cgroup, and starts the agent in them.
func (c *creation) start(path string) error {
	point, err := rootfs.MountPoint(path)
	if err != nil {
		return err
	}
	ns, err := container.UserNamespace(c.e.program, c.facts.UID)
	if err != nil {
		return err
	}
	defer ns.Close()
	listen, err := wire.Listen(c.dir, agent.Socket)
	if err != nil {
		return err
	}
	defer listen.Close()
	stepHook("create socket")
	cfg := container.Config{
		ID:          c.id,
		StateDir:    path + "/container",
		Root:        point,
		Hostname:    c.opts.Hostname,
		HostNetwork: c.opts.Network == NetworkHost,
		UID:         c.facts.UID,
		CPUs:        max(0, c.limits.CPUs),
		Processes:   int64(max(0, c.limits.Processes)),
	}
	c.facts.PID, err = container.Start(cfg, ns, listen, c.e.program, func() error {
		defer stepHook("create mounts")
		return rootfs.MountTree(path, point, c.tmpl, c.opts.Mounts, ns, c.facts.UID)
	})
	if err != nil {
		return err
	}
	c.facts.Start, _, err = startTime(c.facts.PID)
	return err
}

// config is what the agent is told.
func (c *creation) config() *wire.Config {
	return &wire.Config{
		User:      c.opts.User,
		Dir:       c.opts.Dir,
		Env:       append(append([]string{}, c.tmpl.Config.Env...), c.opts.Env...),
		OpenFiles: uint64(max(0, c.limits.OpenFiles)),
		Grace:     c.opts.Grace,
		KeepAlive: c.opts.KeepAlive,

		Seccomp:      string(c.filter.Bytes()),
		SeccompFlags: c.filter.Flags,
	}
}

// hold configures the agent, which makes the connection a handle, and has the sandbox remembered.
func (c *creation) hold(ctx context.Context, client *agent.Client) (*Sandbox, error) {
	now := time.Now()
	info, err := client.Hold(ctx, c.config())
	if err != nil {
		return nil, c.holdError(err)
	}
	stepHook("create hold")
	if err := container.Favour(c.facts.PID, wire.Starter); err != nil {
		return nil, err
	}
	if c.limits.Memory > 0 {
		if err := container.SetLimits(c.id, container.Limits{Memory: c.limits.Memory}); err != nil {
			return nil, err
		}
	}
	c.facts.Protocol = wire.Protocol
	c.facts.Template, c.facts.Metadata = c.opts.Template, c.opts.Metadata
	c.facts.CreatedAt, c.facts.Grace, c.facts.Limits = now, c.opts.Grace, c.limits
	if err := c.e.state.writeFacts(c.id, c.facts); err != nil {
		return nil, err
	}
	stepHook("create facts")
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	l := c.facts.lease(c.id)
	if c.opts.KeepAlive > 0 {
		l.ExpiresAt = now.Add(c.opts.KeepAlive)
	}
	if err := c.e.table.Add(context.WithoutCancel(ctx), l); err != nil { // the last step
		return nil, err
	}
	stepHook("create record")
	c.e.emit(lease.Event{Kind: lease.EventCreated, ID: c.id, ExpiresAt: l.ExpiresAt})
	sb := c.e.handle(c.id, c.dir, client, held(info))
	sb.tap = tap.From(ctx)
	return sb, nil
}

// holdError says what the agent's error means for the options.
func (c *creation) holdError(err error) error {
	var aerr *agent.Error
	if !errors.As(err, &aerr) {
		return err
	}
	switch aerr.Stage {
	case wire.StageUser:
		return invalid("User", "%.64q is not in the template's /etc/passwd or /etc/group", c.opts.User)
	case wire.StageSeccomp:
		return filterError(aerr.Errno)
	case wire.StageChdir:
		return &InvalidError{"Dir", fmt.Sprintf("%.64q can't be used: %v", c.opts.Dir, aerr.Errno)}
	}
	return err
}

// undo removes what run has left.
func (c *creation) undo() error {
	if c.dir == nil {
		return nil
	}
	ctx := context.Background()
	err := c.e.clear(c.id, c.facts)
	if l, lerr := c.e.table.Lease(ctx, c.id); lerr == nil { // Add failed, but went well
		_, eerr := c.e.ended(ctx, l, time.Now(), lease.Crashed)
		err = errors.Join(err, eerr)
	}
	return errors.Join(err, c.dir.Close())
}

// lease is what facts know of a lease.
func (f facts) lease(id string) lease.Lease {
	return lease.Lease{
		ID:        id,
		Template:  f.Template,
		Metadata:  f.Metadata,
		State:     lease.Running,
		CreatedAt: f.CreatedAt,
		Grace:     f.Grace,
	}
}

// Reconnect opens another handle on a sandbox that lives, whichever process created it. If it has ended, the
// error is ErrExpired for a day, and ErrNotFound then.
func (e *Engine) Reconnect(ctx context.Context, id string) (_ *Sandbox, err error) {
	defer func() { err = opError("reconnect", id, err) }()
	if err := e.begin(); err != nil {
		return nil, err
	}
	defer e.using.Done()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if !validID(id) {
		return nil, ErrNotFound
	}
	sb, err := e.reconnect(ctx, id)
	if !gone(err) {
		return sb, err
	}
	// It has ended, was never there, or is being created.
	l, err := e.lease(ctx, id)
	if err == nil && l.State != lease.Ended {
		l, err = e.finishGone(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s %v ago", ErrExpired, l.EndReason, time.Since(l.EndedAt).Round(time.Millisecond))
}

func (e *Engine) reconnect(ctx context.Context, id string) (_ *Sandbox, err error) {
	dir, err := os.Open(e.state.sandbox(id))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Close())
		}
	}()
	// Who has the exclusive lock ends the sandbox, or finds in a moment that there is nothing to do.
	if err := awaitFlock(ctx, dir, false); err != nil {
		return nil, err
	}
	f, err := e.state.readFacts(id)
	if err == nil {
		err = f.checkProtocol()
	}
	if err != nil {
		return nil, err
	}
	client, err := agent.Dial(dir)
	if err != nil {
		return nil, err
	}
	hold := beginHold(client)
	err = patiently(ctx, id, hold.wait)
	if errors.Is(err, ErrPaused) {
		client.SetPaused()
		err = nil
	}
	if err != nil {
		client.Close(ErrClosed)
		return nil, err
	}
	sb := e.handle(id, dir, client, hold)
	if f.Paused { // or so it was: who paused or resumed it may have died half-way
		if err := sb.settle(ctx); err != nil {
			return nil, errors.Join(err, sb.Close())
		}
	}
	e.emit(lease.Event{Kind: lease.EventReconnected, ID: id})
	return sb, nil
}
