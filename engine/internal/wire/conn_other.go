//go:build !linux

package wire

import (
	"context"
	"errors"
	"os"
)

// A Conn is one end of a connection; there is none on this system.
type Conn struct{}

func Dial(*os.File, string) (*Conn, error)      { return nil, errors.ErrUnsupported }
func Listen(*os.File, string) (*os.File, error) { return nil, errors.ErrUnsupported }
func (*Conn) Close() error                      { return errors.ErrUnsupported }
func (*Conn) Send([]byte, ...int) error         { return errors.ErrUnsupported }
func (*Conn) SendContext(context.Context, []byte, ...int) error {
	return errors.ErrUnsupported
}
func (*Conn) TrySend([]byte, ...int) error          { return errors.ErrUnsupported }
func Pair() (*Conn, *os.File, error)                { return nil, nil, errors.ErrUnsupported }
func (*Conn) Recv([]byte) ([]byte, []int, error)    { return nil, nil, errors.ErrUnsupported }
func (*Conn) TryRecv([]byte) ([]byte, []int, error) { return nil, nil, errors.ErrUnsupported }
func (*Conn) Await(func() error) error              { return errors.ErrUnsupported }
func CloseAll([]int)                                {}
func Spill([]byte) (*os.File, error)                { return nil, errors.ErrUnsupported }
