//go:build !linux

package agent

import (
	"errors"
	"os"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

func master(fd int) (*os.File, error) {
	wire.CloseAll([]int{fd})
	return nil, errors.ErrUnsupported
}

// Resize is not supported on this system.
func Resize(*os.File, uint16, uint16) error { return errors.ErrUnsupported }
