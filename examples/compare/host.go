//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// host is the host itself, without a sandbox: the yardstick for what can be done without one.
func (b *bench) host() *tool {
	run := func(ctx context.Context) error { return do(exec.CommandContext(ctx, "true")) }
	return &tool{
		name: "host", how: "os/exec and os, without a sandbox; its files are beside the state directory",
		run: run,
		here: func(context.Context) (*box, error) {
			path := func(name string) string { return filepath.Join(b.scratch, "host-"+name) }
			return &box{
				ops: map[string]op{
					execTrue.name: timed(run),
					firstByte.name: func(ctx context.Context) (time.Duration, error) {
						return onTerminal(exec.CommandContext(ctx, "echo"))
					},
					writeSmall.name: timed(func(context.Context) error { return os.WriteFile(path("small"), small, 0o644) }),
					readSmall.name:  timed(func(context.Context) error { _, err := os.ReadFile(path("small")); return err }),
					writeLarge.name: timed(func(context.Context) error {
						f, err := os.Create(path("large"))
						return b.fill(f, err)
					}),
					readLarge.name: timed(func(context.Context) error {
						f, err := os.Open(path("large"))
						return drain(f, err)
					}),
				},
				remove: func(context.Context) error { return nil },
			}, nil
		},
	}
}

// fill copies the large file to f, if there was no error, and closes it.
func (b *bench) fill(f io.WriteCloser, err error) error {
	if err != nil {
		return err
	}
	if _, err := b.large.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(f, b.large)
	return errors.Join(err, f.Close())
}

// drain reads f to its end, if there was no error, and closes it.
func drain(f io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	// A plain reader and writer, so that who has faster ways of its own doesn't skip the reading.
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 128<<10))
	return errors.Join(err, f.Close())
}
