package wire

// Socket is a socket to connect, or to listen on.
type Socket struct {
	Net  string // "tcp4", "tcp6", "udp4", "udp6", "unix", "unixpacket" or "unixgram"
	IP   string // 4 or 16 bytes
	Port uint16
	Zone uint32 // the interface of a link-local address
	Dual bool   // tcp6, to listen: IPv4 as well
	Path string // unix: relative ones start at the sandbox's directory; "@…" is in the abstract namespace
}

// Put adds s to m.
func (s Socket) Put(m *Message) {
	m.Text(s.Net).Text(s.IP).Uint(uint64(s.Port)).Uint(uint64(s.Zone)).Bool(s.Dual).Text(s.Path)
}

// ReadSocket reads what Put added.
func ReadSocket(r *Reader) Socket {
	return Socket{
		Net:  r.Text(),
		IP:   r.Text(),
		Port: uint16(r.Uint()),
		Zone: uint32(r.Uint()),
		Dual: r.Bool(),
		Path: r.Text(),
	}
}

// The system calls at which OpConnect and OpListen can fail, beside the errno.
const (
	StageSocket     = "socket"
	StageSetsockopt = "setsockopt"
	StageConnect    = "connect"
	StageBind       = "bind"
	StageListen     = "listen"
)
