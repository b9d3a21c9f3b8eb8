package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/rootfs"
)

// The errors that callers may test for with errors.Is. They come in an *Error, or from FS in an
// *fs.PathError. Bad input is fs.ErrInvalid besides, and what this host can't do is errors.ErrUnsupported.
var (
	// ErrNotFound means that there is no sandbox of that ID, and was none in the last day.
	ErrNotFound = errors.New("no such sandbox")
	// ErrExpired means that the sandbox has ended and can't be reconnected to.
	ErrExpired = errors.New("sandbox has ended and can't be reconnected to")
	// ErrClosed means that the handle, or the engine, was closed.
	ErrClosed = agent.ErrClosed
	// ErrEnded means that the sandbox ended while the handle was open.
	ErrEnded = agent.ErrGone
	// ErrPaused means that the sandbox is paused; Resume it first.
	ErrPaused = agent.ErrPaused
	// ErrTemplateNotFound means that the catalog has no such template.
	ErrTemplateNotFound = rootfs.ErrTemplateNotFound
	// ErrKeepAliveTooLong means that a keep-alive or a grace time is over Options.MaxKeepAlive.
	ErrKeepAliveTooLong = errors.New("too long")
	// ErrStateDir means that a directory can't be used as state directory.
	ErrStateDir = errors.New("not usable as state directory")
)

// Error is the error of everything in this package but commands, whose errors are those of os/exec, and
// DialContext and Listen, whose errors are those of net.
type Error struct {
	Op  string // "open", "create", "reconnect", …
	ID  string // the sandbox, if there is one
	Err error
}

// Error gives operation, sandbox and cause.
func (e *Error) Error() string {
	if e.ID == "" {
		return "nestbox: " + e.Op + ": " + e.Err.Error()
	}
	return fmt.Sprintf("nestbox: %s %.64s: %v", e.Op, e.ID, e.Err)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// opError is err as an *Error, and nil for nil.
func opError(op, id string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{op, id, err}
}

// An InvalidError tells what is wrong with an argument. It is fs.ErrInvalid.
type InvalidError struct {
	Field  string // "Metadata", "Limits.Memory", …
	Reason string // what is wrong, and what is allowed
}

// Error gives field and reason.
func (e *InvalidError) Error() string { return "invalid " + e.Field + ": " + e.Reason }

// Is makes an InvalidError fs.ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == fs.ErrInvalid }

func invalid(field, format string, args ...any) error {
	return &InvalidError{field, fmt.Sprintf(format, args...)}
}

// endedError is ErrEnded with how and when.
func endedError(how string) error { return fmt.Errorf("%w: %s", ErrEnded, how) }

func tooLong(field string, d, bound time.Duration) error {
	return fmt.Errorf("%w: %s of %v is over Options.MaxKeepAlive, which is %v", ErrKeepAliveTooLong, field, d, bound)
}
