//go:build !linux || !cgo

package container

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Supported tells why no sandbox can be created by this program.
func Supported() error {
	return fmt.Errorf("%w: sandboxes need Linux and a program built with cgo: set CGO_ENABLED=1 and install a C compiler", errors.ErrUnsupported)
}

func Start(Config, *os.File, *os.File, *os.File, func() error) (int, error) {
	return 0, Supported()
}
func UserNamespace(uint32) (*os.File, error)         { return nil, Supported() }
func SetLimits(string, Limits) error                 { return Supported() }
func Favour(int) error                               { return Supported() }
func OOMKills(string) (uint64, error)                { return 0, Supported() }
func Kill(string, time.Duration) error               { return Supported() }
func RemoveCgroup(string) error                      { return Supported() }
func KillStarting(string, int, []int) ([]int, error) { return nil, Supported() }
func HasCgroup(string) (bool, error)                 { return false, Supported() }
func Freeze(string) error                            { return Supported() }
func Thaw(string) error                              { return Supported() }
func Frozen(string) (bool, error)                    { return false, Supported() }
func ReadLimits(string) (Limits, error)              { return Limits{}, Supported() }
func Controllers() (string, []string, error)         { return "", nil, Supported() }
func LandlockABI() int                               { return 0 }
func CheckLabels(_, _ string) error                  { return Supported() }
func SetHostname(int, string) error                  { return Supported() }
func ReadUsage(string) (Usage, error)                { return Usage{}, Supported() }

// OOMCounter counts nothing.
type OOMCounter struct{}

func CountOOM(string) (OOMCounter, error) { return OOMCounter{}, Supported() }
func (OOMCounter) Kills() (uint64, error) { return 0, Supported() }
