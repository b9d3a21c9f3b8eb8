//go:build !linux

package rootfs

import (
	"context"
	"errors"
	"os"
)

// MountPoint is for Linux.
func MountPoint(string) (string, error) { return "", errors.ErrUnsupported }

// MountTree is for Linux.
func MountTree(string, string, Template, []Mount, *os.File, uint32) (device uint64, err error) {
	return 0, errors.ErrUnsupported
}

// RemoveTree is for Linux.
func RemoveTree(context.Context, string) error { return errors.ErrUnsupported }

// TreeUsage is for Linux.
func TreeUsage(context.Context, string) (bytes, files int64, err error) {
	return 0, 0, errors.ErrUnsupported
}

// DiskUsage is for Linux.
func DiskUsage(string) (bytes, files int64, err error) { return 0, 0, errors.ErrUnsupported }
