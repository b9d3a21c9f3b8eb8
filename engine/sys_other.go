//go:build !linux

package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
)

// Open refuses to work on this system, so that nothing of this is ever called.

var errRefused = errors.ErrUnsupported

func flock(*os.File, bool) error                    { return errors.ErrUnsupported }
func tryFlock(*os.File, bool) (bool, error)         { return false, errors.ErrUnsupported }
func ownerOf(fs.FileInfo) (int, bool)               { return 0, false }
func memfd(string, []byte) (*os.File, error)        { return nil, errors.ErrUnsupported }
func startTime(int) (uint64, bool, error)           { return 0, false, errors.ErrUnsupported }
func openStat(int) (*os.File, error)                { return nil, errors.ErrUnsupported }
func readStat(*os.File) (uint64, bool, error)       { return 0, false, errors.ErrUnsupported }
func reapChild(facts)                               {}
func pipe(bool) (command, host *os.File, err error) { return nil, nil, errors.ErrUnsupported }

type watch struct{}

func watchDir(string) (*watch, error)     { return nil, errors.ErrUnsupported }
func (*watch) wait(context.Context) error { return errors.ErrUnsupported }
func (*watch) close()                     {}

func networkBytes(string) (received, sent int64, err error) { return 0, 0, errors.ErrUnsupported }
func lend(*os.File) (fd int, err error)                     { return -1, errors.ErrUnsupported }
func closeFD(int)                                           {}

func readPosture(int) (Posture, error) { return Posture{}, errors.ErrUnsupported }

func probeHost() []Feature { return nil }
