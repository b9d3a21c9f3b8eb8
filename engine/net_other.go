//go:build !linux

package engine

import "net"

func shutdown(net.Listener) {}
