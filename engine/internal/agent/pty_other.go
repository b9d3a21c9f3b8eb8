//go:build !linux

package agent

import (
	"errors"
	"os"
)

func master(int) (*os.File, error) { return nil, errors.ErrUnsupported }

// Resize is not supported on this system.
func Resize(*os.File, uint16, uint16) error { return errors.ErrUnsupported }
