package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/container"
	"github.com/nestbox/nestbox/engine/internal/tap"
	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/lease"
	"github.com/nestbox/nestbox/rootfs"
	"github.com/nestbox/nestbox/store"
)

// unclaimed is a sandbox that is nobody's yet: it is being made, or waits in the pool. What there is of it is found
// by its directory, the lock on which is free when this process is no more. Its agent ends with this process too.
type unclaimed struct {
	e      *Engine
	path   string   // its directory
	dir    *os.File // with the lock; the handle's in the end
	facts  facts
	stat   *os.File // what the kernel tells of the agent's process
	tmpl   rootfs.Template
	root   fs.FileInfo   // the template's directory
	order  order         // that it was made for
	client *agent.Client // nil: not yet
	info   wire.Info     // what the agent has told

	stock   *stock        // where it was; nil: it wasn't in the pool
	claimed chan struct{} // closed when it isn't in the pool any more
}

// make makes a sandbox. An error leaves nothing behind.
func (e *Engine) make(ctx context.Context, o order) (_ *unclaimed, err error) {
	u := &unclaimed{e: e, order: o, claimed: make(chan struct{})}
	if u.tmpl, err = e.catalog.Lookup(o.opts.Template); err != nil {
		return nil, err
	}
	if u.root, err = os.Stat(u.tmpl.Root); err != nil {
		return nil, err
	}
	if err := u.run(ctx); err != nil {
		return nil, errors.Join(err, u.discard())
	}
	return u, nil
}

// run takes the steps.
func (u *unclaimed) run(ctx context.Context) (err error) {
	if u.facts.Cgroup, err = newID(); err != nil {
		return err
	}
	u.facts.describe(u.order)
	u.path = u.e.state.unclaimed(u.facts.Cgroup)
	u.e.pool.keep(u.facts.Cgroup, true)
	if u.dir, err = u.e.state.makeDir(u.path); err != nil {
		return err
	}
	stepHook("create directory")
	if u.facts.UID, err = ids.take(u.path); err != nil {
		return err
	}
	stepHook("create ids")
	if err := rootfs.MakeTree(u.path, u.facts.UID, max(0, u.order.limits.Disk)); err != nil {
		return err
	}
	stepHook("create tree")
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := u.start(); err != nil {
		return err
	}
	stepHook("create start")
	// That there is a file takes long, and the agent is starting meanwhile.
	if err := u.facts.write(u.factsFile()); err != nil {
		return err
	}
	stepHook("create file")
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if u.client, err = agent.Dial(u.dir); err != nil {
		return err
	}
	return u.hold(ctx)
}

// start makes namespaces, mounts and cgroup, and starts the agent in them.
func (u *unclaimed) start() error {
	point, err := rootfs.MountPoint(u.path)
	if err != nil {
		return err
	}
	ns, err := container.UserNamespace(u.facts.UID)
	if err != nil {
		return err
	}
	defer ns.Close()
	listen, err := wire.Listen(u.dir, agent.Socket)
	if err != nil {
		return err
	}
	defer listen.Close()
	stepHook("create socket")
	opts, limits := u.order.opts, u.order.limits
	cfg := container.Config{
		ID:          u.facts.Cgroup,
		Root:        point,
		Hostname:    opts.Hostname,
		HostNetwork: opts.Network == NetworkHost,
		UID:         u.facts.UID,
		CPUs:        max(0, limits.CPUs),
		Processes:   int64(max(0, limits.Processes)),
		AppArmor:    opts.AppArmor,
		SELinux:     opts.SELinux,
	}
	mounts := opts.Mounts
	if opts.Network == NetworkHost && u.tmpl.Name == rootfs.Base {
		mounts = append(rootfs.ResolverMounts(), mounts...)
	}
	u.facts.PID, err = container.Start(cfg, ns, listen, u.e.program, func() (err error) {
		defer stepHook("create mounts")
		u.facts.Disk, err = rootfs.MountTree(u.path, point, u.tmpl, mounts, ns, u.facts.UID)
		return err
	})
	if err != nil {
		return err
	}
	u.facts.OwnNetwork = opts.Network == NetworkNone
	if u.stat, err = openStat(u.facts.PID); err != nil {
		return err
	}
	u.facts.Start, _, err = readStat(u.stat)
	return err
}

// hold configures the agent, which makes the connection a handle, and sets the limits that would have been in the way
// until now.
func (u *unclaimed) hold(ctx context.Context) error {
	cfg := u.order.config(u.tmpl)
	cfg.Seccomp, cfg.SeccompFlags = string(u.order.filter.Bytes()), u.order.filter.Flags
	answer, cancel := context.WithTimeoutCause(ctx, answerTimeout, errNoAnswer)
	defer cancel()
	var err error
	if u.info, err = u.client.Hold(answer, &cfg); err != nil {
		return u.order.configError(err)
	}
	stepHook("create hold")
	if err := container.Favour(u.facts.PID); err != nil {
		return err
	}
	l := container.Limits{
		Memory:   max(0, u.order.limits.Memory),
		Disk:     u.facts.Disk,
		DiskIOPS: int64(max(0, u.order.limits.DiskIOPS)),
	}
	return container.SetLimits(u.facts.Cgroup, l)
}

func (u *unclaimed) factsFile() string { return filepath.Join(u.path, factsFile) }

// claim makes the sandbox that of who asked for o, and has it remembered. With an error it is to be discarded.
func (u *unclaimed) claim(ctx context.Context, o order) (*Sandbox, error) {
	id := u.facts.Cgroup
	if u.stock != nil {
		if _, ended, err := readStat(u.stat); ended || err != nil { // which it may not have told yet
			return nil, agent.ErrGone
		}
		if now, err := os.Stat(u.tmpl.Root); err != nil || !os.SameFile(now, u.root) {
			return nil, errors.New("the template was replaced")
		}
		var err error // IDs sort by time
		if id, err = newID(); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	if u.facts.describe(o) {
		if err := u.facts.write(u.factsFile()); err != nil {
			return nil, err
		}
	}
	stepHook("create facts")
	if err := u.publish(id); err != nil {
		return nil, err
	}
	if err := u.change(o); err != nil {
		return nil, err
	}
	if err := u.configure(ctx, o); err != nil {
		return nil, err
	}
	stepHook("create claim")
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	l := u.facts.lease(id)
	if o.opts.KeepAlive > 0 {
		l.ExpiresAt = now.Add(o.opts.KeepAlive)
	}
	if err := u.record(context.WithoutCancel(ctx), l); err != nil { // the last step
		return nil, err
	}
	stepHook("create record")
	_ = u.stat.Close()
	u.e.emit(lease.Event{Kind: lease.EventCreated, ID: id, ExpiresAt: l.ExpiresAt})
	sb := u.e.handle(id, u.facts.Cgroup, u.dir, u.client, held(u.info))
	sb.tap = tap.From(ctx)
	return sb, nil
}

// publish makes the sandbox's directory that of the sandbox id.
func (u *unclaimed) publish(id string) error {
	path := u.e.state.sandbox(id)
	if err := os.Rename(u.path, path); err != nil {
		return err
	}
	u.path = path
	u.e.pool.keep(u.facts.Cgroup, false)
	stepHook("create publish")
	return nil
}

// change changes what the host can of what the sandbox was made with.
func (u *unclaimed) change(o order) error {
	was, is := u.order.limits, o.limits
	l := container.Limits{Disk: u.facts.Disk}
	if is.Memory != was.Memory {
		l.Memory = is.Memory
	}
	if is.CPUs != was.CPUs {
		l.CPUs = is.CPUs
	}
	if is.Processes != was.Processes {
		l.Processes = int64(is.Processes)
	}
	if is.DiskIOPS != was.DiskIOPS {
		l.DiskIOPS = int64(is.DiskIOPS)
	}
	if err := u.checkRoom(l); err != nil {
		return err
	}
	if l != (container.Limits{Disk: u.facts.Disk}) {
		if err := container.SetLimits(u.facts.Cgroup, l); err != nil {
			return err
		}
	}
	if o.opts.Hostname == u.order.opts.Hostname {
		return nil
	}
	return container.SetHostname(u.facts.PID, o.opts.Hostname)
}

// checkRoom tells whether what a warm-up has left is within limits. The kernel would rather end it, or refuse all that
// comes.
func (u *unclaimed) checkRoom(l container.Limits) error {
	if l.Memory <= 0 && l.Processes <= 0 {
		return nil
	}
	now, err := container.ReadUsage(u.facts.Cgroup)
	switch {
	case err != nil:
		return err
	case l.Memory > 0 && now.Memory > l.Memory:
		return fmt.Errorf("%d bytes of memory are taken already", now.Memory)
	case l.Processes > 0 && int64(now.Processes) >= l.Processes:
		return fmt.Errorf("there are %d processes already", now.Processes)
	}
	return nil
}

// configure tells the agent what it wasn't told when the sandbox was made, if there is anything.
func (u *unclaimed) configure(ctx context.Context, o order) (err error) {
	cfg, told := o.config(u.tmpl), u.order.config(u.tmpl)
	cfg.Grace, cfg.KeepAlive = o.opts.Grace, o.opts.KeepAlive
	if cfg.Grace == 0 && cfg.KeepAlive == 0 && cfg.OpenFiles == told.OpenFiles && cfg.StartsLike(told) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errNoAnswer)
	defer cancel()
	u.info, err = u.client.Configure(ctx, cfg)
	return o.configError(err)
}

// record has the sandbox remembered. Another engine that opens may have found it, and been faster.
func (u *unclaimed) record(ctx context.Context, l lease.Lease) error {
	err := u.e.table.Add(ctx, l)
	if errors.Is(err, store.ErrExists) {
		err = u.e.table.SetExpiry(ctx, l.ID, l.ExpiresAt)
	}
	return err
}

// discard removes what there is of the sandbox.
func (u *unclaimed) discard() error {
	u.e.pool.keep(u.facts.Cgroup, false)
	if u.dir == nil {
		return nil
	}
	if u.client != nil {
		u.client.Close(ErrClosed)
	}
	if u.stat != nil {
		_ = u.stat.Close()
	}
	err := u.e.clear(u.path, u.facts, killTimeout)
	if id := filepath.Base(u.path); u.path == u.e.state.sandbox(id) {
		ctx := context.Background()
		if l, lerr := u.e.table.Lease(ctx, id); lerr == nil { // Add failed, but went well
			_, eerr := u.e.ended(ctx, l, time.Now(), lease.Crashed)
			err = errors.Join(err, eerr)
		}
	}
	return errors.Join(err, u.dir.Close())
}
