//go:build !linux

package agent

import (
	"errors"
	"os"
)

func received(int, string) (*os.File, error) { return nil, errors.ErrUnsupported }
