package wire

import "golang.org/x/sys/unix"

// SocketKind is what socket(2) is asked for.
type SocketKind struct{ Domain, Type, Protocol int }

// Kind gives the kind of a socket; it is false if there is none.
func (s Socket) Kind() (k SocketKind, ok bool) {
	switch s.Net {
	case "tcp4":
		return SocketKind{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP}, true
	case "tcp6":
		return SocketKind{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP}, true
	case "udp4":
		return SocketKind{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, true
	case "udp6":
		return SocketKind{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, true
	case "unix":
		return SocketKind{unix.AF_UNIX, unix.SOCK_STREAM, 0}, true
	case "unixpacket":
		return SocketKind{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0}, true
	case "unixgram":
		return SocketKind{unix.AF_UNIX, unix.SOCK_DGRAM, 0}, true
	}
	return SocketKind{}, false
}
