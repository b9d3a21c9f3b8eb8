//go:build !linux

package agent

import (
	"context"
	"errors"
	"os"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// There is no agent on this system.

func takeSocket(int, wire.Socket, bool) (*os.File, error) { return nil, errors.ErrUnsupported }
func awaitConnect(context.Context, *os.File) error        { return errors.ErrUnsupported }
