package engine_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/fsapi"
	"golang.org/x/sys/unix"
)

// insideProgram is where a sandbox of withProgram has this program.
const insideProgram = "/opt/engine.test"

func init() {
	helpers["echo"] = func(args []string) error { // <network> <address>: prints its address, echoes each connection
		l, err := net.Listen(args[0], args[1])
		if err != nil {
			return err
		}
		fmt.Println(l.Addr())
		return echo(l)
	}
	helpers["web"] = func(args []string) error { // <network> <address>: prints its address, serves HTTP
		l, err := net.Listen(args[0], args[1])
		if err != nil {
			return err
		}
		fmt.Println(l.Addr())
		return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "inside: %s", r.URL.Path) }))
	}
	helpers["get"] = func(args []string) error { // <URL>: prints what it gets
		r, err := http.Get(args[0])
		if err != nil {
			return err
		}
		defer r.Body.Close()
		_, err = io.Copy(os.Stdout, r.Body)
		return err
	}
	helpers["send"] = func(args []string) error { // <network> <address> <text>: prints what comes back
		c, err := net.Dial(args[0], args[1])
		if err != nil {
			return err
		}
		got, err := exchange(c, args[2])
		fmt.Print(got)
		return err
	}
	helpers["busy"] = func([]string) error { // prints the port of a listener that accepts nothing
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		if err := unix.Listen(fd, 0); err != nil {
			return err
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		fmt.Println(sa.(*unix.SockaddrInet4).Port)
		select {}
	}
	helpers["peer"] = func(args []string) error { // <path>: prints a line, then who connects, see SO_PEERCRED
		l, err := net.Listen("unix", args[0])
		if err != nil {
			return err
		}
		if err := os.Chmod(args[0], 0o777); err != nil {
			return err
		}
		fmt.Println(l.Addr())
		c, err := l.Accept()
		if err != nil {
			return err
		}
		rc, err := c.(*net.UnixConn).SyscallConn()
		if err != nil {
			return err
		}
		return rc.Control(func(fd uintptr) {
			cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
			fmt.Println(cred.Uid, cred.Gid, err)
		})
	}
}

// echo sends back what each connection sends, until it is closed or the listener is.
func echo(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			// Without splice(2), whose pipes the runtime keeps until it collects them.
			_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
		}()
	}
}

// exchange sends a text, reads until the other end closes, and closes.
func exchange(c net.Conn, text string) (string, error) {
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// withProgram are options of a sandbox that has this program.
func withProgram(t testing.TB) engine.CreateOptions {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return engine.CreateOptions{Mounts: []engine.Mount{{Source: self, Target: insideProgram}}}
}

// inside prepares to run a helper in a sandbox of withProgram.
func inside(t testing.TB, sb *engine.Sandbox, helper string, args ...string) *engine.Cmd {
	t.Helper()
	cmd := sb.Command(insideProgram, args...)
	cmd.Env = append(cmd.Environ(), helperVar+"="+helper)
	cmd.Stderr = os.Stderr
	return cmd
}

// startInside starts a helper that prints a line when it is ready, and gives the line and the rest. It is killed
// when the test ends.
func startInside(t testing.TB, sb *engine.Sandbox, helper string, args ...string) (string, *bufio.Reader) {
	t.Helper()
	cmd := inside(t, sb, helper, args...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Kill()
		_ = cmd.Wait()
	})
	out := bufio.NewReader(stdout)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatalf("reading from helper %s: %v", helper, err)
	}
	return strings.TrimSuffix(line, "\n"), out
}

func TestHTTPServerInside(t *testing.T) {
	sb := create(t, open(t, ""), withProgram(t))
	addr, _ := startInside(t, sb, "web", "tcp", "127.0.0.1:0")
	transport := &http.Transport{DialContext: sb.DialContext}
	defer transport.CloseIdleConnections()
	_, port, _ := net.SplitHostPort(addr)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		r, err := (&http.Client{Transport: transport}).Get("http://" + host + ":" + port + "/a/b")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if string(body) != "inside: /a/b" || err != nil {
			t.Errorf("GET from %s: %q, %v", host, body, err)
		}
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		_ = c.Close()
		t.Errorf("the host reaches %s without the sandbox", addr)
	}
}

func TestHTTPServerOutside(t *testing.T) {
	sb := create(t, open(t, ""), withProgram(t))
	l, err := sb.Listen(t.Context(), "tcp", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "outside, to %s", r.Host)
	})}
	served := make(chan error)
	go func() { served <- srv.Serve(l) }()
	for _, host := range []string{"127.0.0.1", "localhost"} {
		out, err := inside(t, sb, "get", "http://"+host+"/").Output()
		if want := "outside, to " + host; string(out) != want || err != nil {
			t.Errorf("inside got %q, %v, want %q", out, err, want)
		}
	}
	if err := sb.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve after Close of the handle: %v, want net.ErrClosed", err)
	}
}

// TestNetworks goes through the networks in both directions.
func TestNetworks(t *testing.T) {
	sb := create(t, open(t, ""), withProgram(t))
	for _, tc := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:0"},
		{"tcp", "[::1]:0"},
		{"tcp", ":0"},
		{"tcp4", ":0"},
		{"tcp6", "[::]:0"},
		{"tcp6", "localhost:0"},
		{"unix", "/tmp/sock"},
		{"unix", "@nestbox"},
	} {
		t.Run(tc.network+" "+tc.address, func(t *testing.T) {
			addr, _ := startInside(t, sb, "echo", tc.network, tc.address)
			c, err := sb.DialContext(t.Context(), tc.network, addr)
			if err != nil {
				t.Fatal(err)
			}
			_, isTCP := c.(*net.TCPConn)
			_, isUnix := c.(*net.UnixConn)
			if isTCP != strings.HasPrefix(tc.network, "tcp") || isUnix != (tc.network == "unix") {
				t.Errorf("connection is a %T", c)
			}
			if tc.network == "unix" && c.RemoteAddr().String() != tc.address {
				t.Errorf("RemoteAddr() = %v, want %v", c.RemoteAddr(), tc.address)
			}
			if got, err := exchange(c, "in"); got != "in" || err != nil {
				t.Errorf("echo from inside: %q, %v", got, err)
			}

			l, err := sb.Listen(t.Context(), tc.network, strings.Replace(tc.address, "box", "box2", 1)+suffix(tc.address))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error)
			go func() { ended <- echo(l) }()
			out, err := inside(t, sb, "send", tc.network, l.Addr().String(), "out").Output()
			if string(out) != "out" || err != nil {
				t.Errorf("echo from outside: %q, %v", out, err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept of a closed listener: %v, want net.ErrClosed", err)
			}
		})
	}
}

// suffix makes another path of a path.
func suffix(address string) string {
	if strings.HasPrefix(address, "/") {
		return "2"
	}
	return ""
}

// TestListenAll checks that listening on no host serves IPv4 and IPv6, and on that of one family only that.
func TestListenAll(t *testing.T) {
	sb := create(t, open(t, ""), engine.CreateOptions{})
	for _, tc := range []struct {
		network, address string
		v4, v6           bool
	}{
		{"tcp", ":0", true, true},
		{"tcp", "0.0.0.0:0", true, true}, // as package net has it
		{"tcp4", ":0", true, false},
		{"tcp6", ":0", false, true},
		{"tcp", "127.0.0.1:0", true, false},
		{"tcp", "localhost:0", true, false},
	} {
		l, err := sb.Listen(t.Context(), tc.network, tc.address)
		if err != nil {
			t.Fatal(err)
		}
		want, err := net.Listen(tc.network, tc.address)
		if err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(l.Addr().String())
		if wantHost, _, _ := net.SplitHostPort(want.Addr().String()); host != wantHost || port == "0" {
			t.Errorf("%s %s: Addr() = %v, want host %s", tc.network, tc.address, l.Addr(), wantHost)
		}
		for to, reached := range map[string]bool{"127.0.0.1:": tc.v4, "[::1]:": tc.v6} {
			c, err := sb.DialContext(t.Context(), "tcp", to+port)
			if (err == nil) != reached {
				t.Errorf("%s %s reached by %s: %v, want it %v", tc.network, tc.address, to, err, reached)
			}
			if err == nil {
				_ = c.Close()
			}
		}
		_, _ = l.Close(), want.Close()
	}
}

func TestDialDatagram(t *testing.T) {
	sb := create(t, open(t, ""), engine.CreateOptions{})
	c, err := sb.DialContext(t.Context(), "udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(*net.UDPConn); !ok || c.RemoteAddr().String() != "127.0.0.1:9" {
		t.Errorf("dialled a %T to %v", c, c.RemoteAddr())
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Read where nobody listens: %v, want ECONNREFUSED", err)
	}
}

// TestSeparateNetworks has two sandboxes and the host listen on one port.
func TestSeparateNetworks(t *testing.T) {
	eng := open(t, "")
	var port string
	var list []net.Listener
	for i := range 2 {
		sb := create(t, eng, engine.CreateOptions{})
		l, err := sb.Listen(t.Context(), "tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(l.Addr().String())
		list = append(list, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, i)
				_ = c.Close()
			}
		}()
		c, err := sb.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); string(got) != fmt.Sprint(i) || err != nil {
			t.Errorf("sandbox %d reaches %q, %v", i, got, err)
		}
		_ = c.Close()
	}
	if list[0].Addr().String() != list[1].Addr().String() {
		t.Fatalf("listening on %v and %v, want one address", list[0].Addr(), list[1].Addr())
	}
	l, err := net.Listen("tcp", list[0].Addr().String())
	if err != nil {
		t.Errorf("the host can't listen where sandboxes do: %v", err)
	} else {
		_ = l.Close()
	}
}

// TestHostsNetwork checks that with NetworkHost the network is the host's in both directions.
func TestHostsNetwork(t *testing.T) {
	sb := create(t, open(t, ""), engine.CreateOptions{Network: engine.NetworkHost})
	both := bothNetworks(sb)
	for i, n := range both {
		l, err := n.listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { ended <- echo(l) }()
		c, err := both[1-i].dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := exchange(c, "x"); got != "x" || err != nil {
			t.Errorf("listening on the %s: echo %q, %v", n.name, got, err)
		}
		_ = l.Close()
		<-ended
	}
}

func TestDialNames(t *testing.T) {
	sb := create(t, open(t, ""), engine.CreateOptions{})
	l, err := sb.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = echo(l) }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	hosts := "# 127.0.0.1 comment\n127.0.0.1 other Db.Example # comment\n::1 six\nnonsense six\n192.0.2.1\n::1 both\n127.0.0.1 both\n"
	if err := sb.FS().WriteFile("/etc/hosts", []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"db.example", "OTHER", "other.", "both", ""} {
		c, err := sb.DialContext(t.Context(), "tcp", host+":"+port)
		if err != nil {
			t.Errorf("dial %q: %v", host, err)
			continue
		}
		if got := c.RemoteAddr().String(); got != "127.0.0.1:"+port {
			t.Errorf("dial %q: connected to %s", host, got)
		}
		_ = c.Close()
	}
	var aerr *net.AddrError
	if _, err := sb.DialContext(t.Context(), "tcp4", "six:"+port); !errors.As(err, &aerr) {
		t.Errorf("dial a name without an address of the family: %v, want a *net.AddrError", err)
	}
	checkNotFound := func(host string, found bool) {
		t.Helper()
		var derr *net.DNSError
		_, err := sb.DialContext(t.Context(), "tcp", host+":"+port)
		if !errors.As(err, &derr) || derr.Name != host || derr.IsNotFound == found {
			t.Errorf("dial %q: %v, want a *net.DNSError", host, err)
		}
	}
	checkNotFound("comment", false)
	hostname, _ := os.Hostname()
	checkNotFound(hostname, false)
	if err := sb.FS().Remove("/etc/hosts"); err != nil {
		t.Fatal(err)
	}
	checkNotFound("other", false)
	if err := sb.Command("mkfifo", "/etc/hosts").Run(); err != nil {
		t.Fatal(err)
	}
	checkNotFound("other", true)
}

// TestSocketsOfUser checks that sockets have the rights of the sandbox's user.
func TestSocketsOfUser(t *testing.T) {
	opts := withProgram(t)
	opts.User = "user"
	sb := create(t, open(t, ""), opts)
	if _, err := sb.Listen(t.Context(), "tcp", "127.0.0.1:80"); !errors.Is(err, syscall.EACCES) {
		t.Errorf("listen on a low port: %v, want EACCES", err)
	}
	if _, err := sb.Listen(t.Context(), "unix", "/etc/sock"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("listen in root's directory: %v, want fs.ErrPermission", err)
	}
	l, err := sb.Listen(t.Context(), "unix", "sock")
	if err != nil {
		t.Fatal(err)
	}
	fi, err := sb.FS().Stat("/home/user/sock")
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*fsapi.Stat); st.UID != 1000 || st.GID != 1000 || fi.Mode()&fs.ModeSocket == 0 {
		t.Errorf("socket's file is %v of %d:%d", fi.Mode(), st.UID, st.GID)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if found, err := sb.FS().Exists("sock"); found || err != nil {
		t.Errorf("socket's file after Close: exists %v, %v", found, err)
	}

	path, out := startInside(t, sb, "peer", "/tmp/peer")
	c, err := sb.DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if line, err := out.ReadString('\n'); line != "1000 1000 <nil>\n" || err != nil {
		t.Errorf("peer is %q, %v, want the user", line, err)
	}
}

// TestSocketsOutliveHandle checks what stays of a handle that is closed, and of a sandbox that has ended.
func TestSocketsOutliveHandle(t *testing.T) {
	dir := stateDir(t)
	eng := open(t, dir)
	opts := withProgram(t)
	opts.KeepAlive = time.Minute
	sb := create(t, eng, opts)
	other, err := eng.Reconnect(t.Context(), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := startInside(t, other, "echo", "tcp", "127.0.0.1:0")
	c, err := sb.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := sb.Listen(t.Context(), "unix", "/tmp/sock")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error)
	go func() { _, err := l.Accept(); accepted <- err }()
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close of the handle: %v, want net.ErrClosed", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close after Close of the handle: %v, want net.ErrClosed", err)
	}
	for _, f := range []func() error{
		func() error { _, err := sb.DialContext(t.Context(), "tcp", addr); return err },
		func() error { _, err := sb.DialContext(t.Context(), "tcp", "name:1"); return err },
		func() error { _, err := sb.Listen(t.Context(), "unix", "/tmp/sock"); return err },
	} {
		var operr *net.OpError
		if err := f(); !errors.As(err, &operr) || !errors.Is(err, engine.ErrClosed) {
			t.Errorf("after Close of the handle: %v, want ErrClosed in a *net.OpError", err)
		}
	}
	if found, err := other.FS().Exists("/tmp/sock"); found || err != nil {
		t.Errorf("socket's file after Close of the handle: exists %v, %v", found, err)
	}
	ping := func() error {
		_, err := c.Write([]byte("x"))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		return err
	}
	if err := ping(); err != nil {
		t.Errorf("connection after Close of the handle: %v", err)
	}

	if l, err = other.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go func() { _, err := l.Accept(); accepted <- err }()
	if err := eng.Kill(t.Context(), other.ID()); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the sandbox has ended: %v, want net.ErrClosed", err)
	}
	<-other.Done()
	if err := ping(); err == nil {
		t.Error("a connection to a sandbox that has ended goes on")
	}
	if _, err := other.DialContext(t.Context(), "tcp", addr); !errors.Is(err, engine.ErrEnded) {
		t.Errorf("dial in a sandbox that has ended: %v, want ErrEnded", err)
	}
	checkNothingLeft(t, dir) // with the connection still open
}

// TestBlockingListener has the agent make a listener wait where only its end wakes it: that must not keep the
// handle from closing.
func TestBlockingListener(t *testing.T) {
	eng := open(t, "")
	for _, tc := range []struct{ network, address string }{{"tcp", "127.0.0.1:0"}, {"unix", "/tmp/sock"}} {
		sb := create(t, eng, engine.CreateOptions{})
		l, err := sb.Listen(t.Context(), tc.network, tc.address)
		if err != nil {
			t.Fatal(err)
		}
		f, err := engine.ListenerFile(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(int(f.Fd()), false); err != nil { // of the socket, whoever has it
			t.Fatal(err)
		}
		accepted := make(chan error)
		go func() { _, err := l.Accept(); accepted <- err }()
		eventually(t, 5*time.Second, "a thread waits in accept4", func() bool { return inSyscall(t, unix.SYS_ACCEPT4) })
		closed := make(chan error)
		go func() { closed <- sb.Close() }()
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("Close waits for a listener's Accept")
		}
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close of the handle: %v, want net.ErrClosed", err)
		}
		_ = f.Close()
	}
}

// inSyscall tells whether a thread of this process is in a system call.
func inSyscall(t *testing.T, number int) bool {
	t.Helper()
	for _, tid := range list(t, "/proc/self/task") {
		b, _ := os.ReadFile(filepath.Join("/proc/self/task", tid, "syscall"))
		if strings.HasPrefix(string(b), fmt.Sprint(number)+" ") {
			return true
		}
	}
	return false
}

// TestSocketLeaks dials and listens 500 times, in all ways, and counts what this process and the agent have.
func TestSocketLeaks(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which would close what was forgotten
	dir := stateDir(t)
	eng := open(t, dir)
	sb := create(t, eng, engine.CreateOptions{User: "user"})
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	once := func() {
		for _, tc := range []struct{ network, address string }{{"tcp", "127.0.0.1:0"}, {"unix", "sock"}} {
			l, err := sb.Listen(t.Context(), tc.network, tc.address)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error)
			go func() { ended <- echo(l) }()
			c, err := sb.DialContext(t.Context(), tc.network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if got, err := exchange(c, "x"); got != "x" || err != nil {
				t.Fatalf("echo: %q, %v", got, err)
			}
			_ = l.Close()
			<-ended
			for _, ctx := range []context.Context{t.Context(), canceled} {
				if _, err := sb.DialContext(ctx, tc.network, l.Addr().String()); err == nil {
					t.Fatal("dialled a listener that is closed")
				}
			}
		}
	}
	agent := filepath.Join("/proc", fmt.Sprint(agentPID(t, eng, sb.ID())), "fd")
	for range 10 {
		once()
	}
	before, agentBefore := measure(t, dir, nil), len(list(t, agent))
	for range 250 {
		once()
	}
	if n := sb.Listeners(); n != 0 {
		t.Errorf("the handle keeps %d listeners that are closed", n)
	}
	var after usage
	defer func() {
		t.Logf("before %+v and %d of the agent's, after %+v and %d", before, agentBefore, after, len(list(t, agent)))
	}()
	eventually(t, 10*time.Second, "usage is as before", func() bool {
		after = measure(t, dir, nil)
		return after.descriptors <= before.descriptors && after.goroutines <= before.goroutines &&
			after.threads <= before.threads+8 && len(list(t, agent)) <= agentBefore
	})
}
