package engine

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// maxHosts is how much of a sandbox's /etc/hosts is read, in bytes.
const maxHosts = 1 << 20

// maxAddrs is how many addresses of a name are tried.
const maxAddrs = 32

// resolve works out the addresses that package net would for op, "dial" or "listen", in the place of the
// sandbox.
func (s *Sandbox) resolve(ctx context.Context, op, network, address string) ([]net.Addr, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixpacket", "unixgram":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	if op == "dial" && address == "" {
		return nil, errors.New("missing address")
	}
	if strings.HasPrefix(network, "unix") {
		return []net.Addr{&net.UnixAddr{Name: address, Net: network}}, nil
	}
	var host, service string
	if address != "" {
		var err error
		if host, service, err = net.SplitHostPort(address); err != nil {
			return nil, err
		}
	}
	// Numbers, and names that are the same everywhere: this asks nobody.
	port, err := (&net.Resolver{PreferGo: true}).LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	ips, err := s.hosts(host)
	if err != nil {
		return nil, err
	}
	var addrs []net.Addr
	for _, ip := range ips {
		if fits(network, ip) {
			if addrs = append(addrs, inetAddr(network, ip, port)); len(addrs) == maxAddrs {
				break
			}
		}
	}
	if addrs == nil {
		return nil, &net.AddrError{Err: "no suitable address found", Addr: host}
	}
	return addrs, nil
}

// hosts gives the addresses of a host. No host is the zero address.
func (s *Sandbox) hosts(host string) ([]netip.Addr, error) {
	if host == "" {
		return []netip.Addr{{}}, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	if err := s.usable(); err != nil {
		return nil, err
	}
	ips, err := s.lookInHosts(name)
	switch {
	case len(ips) > 0:
		return ips, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, &net.DNSError{UnwrapErr: err, Err: err.Error(), Name: host}
	default:
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
}

func (s *Sandbox) lookInHosts(name string) ([]netip.Addr, error) {
	f, err := s.fs.Open("/etc/hosts")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return findHost(io.LimitReader(f, maxHosts), name)
}

// findHost finds the addresses of a name, in lower case, in what is written as hosts(5) says.
func findHost(r io.Reader, name string) (ips []netip.Addr, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		ip, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		for _, alias := range fields[1:] {
			if strings.ToLower(strings.TrimSuffix(alias, ".")) == name {
				ips = append(ips, ip.Unmap())
				break
			}
		}
	}
	return ips, lines.Err()
}

// fits tells whether a network has such addresses.
func fits(network string, ip netip.Addr) bool {
	switch {
	case !ip.IsValid():
		return true
	case strings.HasSuffix(network, "4"):
		return ip.Is4()
	case strings.HasSuffix(network, "6"):
		return ip.Is6()
	default:
		return true
	}
}

func inetAddr(network string, ip netip.Addr, port int) net.Addr {
	if strings.HasPrefix(network, "udp") {
		return &net.UDPAddr{IP: ip.AsSlice(), Zone: ip.Zone(), Port: port}
	}
	return &net.TCPAddr{IP: ip.AsSlice(), Zone: ip.Zone(), Port: port}
}

// preferred is the address of several that package net listens on: the first of IPv4.
func preferred(addrs []net.Addr) net.Addr {
	for _, addr := range addrs {
		if a, ok := addr.(*net.TCPAddr); ok && a.IP.To4() != nil {
			return addr
		}
	}
	return addrs[0]
}

// socketTo is the socket that dials an address. No address, and one of all, is the local host.
func socketTo(network string, addr net.Addr) wire.Socket {
	if a, ok := addr.(*net.UnixAddr); ok {
		return wire.Socket{Net: network, Path: a.Name}
	}
	so := inetSocket(network, addr)
	if isZero(so.IP) {
		so.IP = string([]byte{127, 0, 0, 1})
		if strings.HasSuffix(network, "6") {
			ip := netip.IPv6Loopback().As16()
			so.IP = string(ip[:])
		}
	}
	return withFamily(so)
}

// socketOn is the socket that listens on an address. No address, and one of all, is all of the network's.
func socketOn(network string, addr net.Addr) wire.Socket {
	if a, ok := addr.(*net.UnixAddr); ok {
		return wire.Socket{Net: network, Path: a.Name}
	}
	so := inetSocket(network, addr)
	if isZero(so.IP) {
		so.Dual = network == "tcp"
		so.IP = string(make([]byte, 16))
		if strings.HasSuffix(network, "4") {
			so.IP = string(make([]byte, 4))
		}
	}
	return withFamily(so)
}

// inetSocket is the socket of an address as it stands, of a family that isn't said yet.
func inetSocket(network string, addr net.Addr) wire.Socket {
	var ip net.IP
	so := wire.Socket{Net: network[:3]}
	switch a := addr.(type) {
	case *net.TCPAddr:
		ip, so.Port, so.Zone = a.IP, uint16(a.Port), zone(a.Zone)
	case *net.UDPAddr:
		ip, so.Port, so.Zone = a.IP, uint16(a.Port), zone(a.Zone)
	}
	so.IP = string(ip)
	return so
}

func withFamily(so wire.Socket) wire.Socket {
	if len(so.IP) == 4 {
		so.Net += "4"
	} else {
		so.Net += "6"
	}
	return so
}

func isZero(ip string) bool { return strings.Trim(ip, "\x00") == "" }

// zone is the number of an interface in the sandbox: loopback is always the first; others go by their number.
func zone(name string) uint32 {
	if name == "lo" {
		return 1
	}
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// filePath is the path of a unix socket that has a file; else it is empty, see unix(7).
func filePath(path string) string {
	if strings.HasPrefix(path, "@") {
		return ""
	}
	return path
}
