package engine_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// software is what has to work under the default profile: a program, and a script for it that prints ok at its end.
// What every machine has that the tests run on is always there.
var software = []struct {
	name, program string
	always        bool
	script        string
}{
	{"sh", "sh", true, `(echo a; echo b) | while read x; do echo $x; done >f; test $(wc -l <f) = 2; kill -0 $$; ulimit -n 100; nice -n 5 true; echo ok`},
	{"awk", "awk", true, `echo 1 2 | awk '{ "echo 3" | getline x; if ($1+$2 == x) print "ok" }'`},
	{"sort", "sort", true, `seq 100000 | sort -S 1M -T . --parallel=2 -rn | head -1 | grep -q 100000; echo ok`},
	{"tar", "tar", true, `mkdir -p d/e; echo x >d/e/f; ln -s f d/e/l; mkfifo d/p; tar -cf d.tar d; mkdir out; tar -xpf d.tar -C out; test -L out/d/e/l -a -p out/d/p; echo ok`},
	{"gzip", "gzip", true, `echo ok | gzip -9 | gzip -d`},
	{"git", "git", true, `git init -q r; cd r; git config user.email a@b; git config user.name a; echo x >f; git add f; git commit -qm m; git gc -q; git clone -q . ../s; test -f ../s/f; echo ok`},
	{"gcc", "gcc", true, `printf '#include <pthread.h>\n#include <stdio.h>\nstatic void *f(void *p) { return p; }\nint main(void) { pthread_t t; pthread_create(&t, 0, f, 0); pthread_join(t, 0); puts("ok"); }\n' >a.c; gcc -O2 -pthread -pipe a.c -o a; ./a`},
	{"bash", "bash", false, `bash -c 'set -e; diff <(echo a) <(echo a); coproc cat; echo x >&"${COPROC[1]}"; read -r y <&"${COPROC[0]}"; test $y = x; echo ok'`},
	{"python3", "python3", false, `cat >a.py <<'END'
import asyncio, concurrent.futures, multiprocessing, os, socket, subprocess, tempfile, threading, mmap, signal
s = socket.create_server(("127.0.0.1", 0))
def serve():
    c, _ = s.accept(); c.sendall(c.recv(10)); c.close()
t = threading.Thread(target=serve); t.start()
c = socket.create_connection(s.getsockname()); c.sendall(b"x"); assert c.recv(10) == b"x"; t.join()
assert subprocess.run(["echo", "hi"], capture_output=True).stdout == b"hi\n"
assert subprocess.run(["id", "-u"], capture_output=True, start_new_session=True).returncode == 0
with concurrent.futures.ThreadPoolExecutor(8) as e: assert sum(e.map(len, ["a"] * 100)) == 100
async def main():
    p = await asyncio.create_subprocess_exec("true"); return await p.wait()
assert asyncio.run(main()) == 0
m = mmap.mmap(-1, 1 << 20); m[0] = 1
with tempfile.TemporaryDirectory() as d: open(os.path.join(d, "f"), "w").write("x")
os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1); socket.if_nameindex()
def f(x): return x * x
if __name__ == "__main__":
    with multiprocessing.Pool(2) as p: assert p.map(f, [1, 2]) == [1, 4]
    print("ok")
END
/usr/bin/python3 a.py`},
	{"node", "node", false, `cat >a.js <<'END'
const http = require('http'), { Worker } = require('worker_threads'), fs = require('fs'), cp = require('child_process'), os = require('os');
os.networkInterfaces(); fs.watch('.').close();
if (cp.execSync('echo hi').toString() !== 'hi\n') throw 1;
const w = new Worker('require("worker_threads").parentPort.postMessage(1)', { eval: true });
w.on('message', () => {
  const s = http.createServer((q, r) => r.end('ok')).listen(0, '127.0.0.1', () =>
    http.get(s.address(), (r) => r.on('data', (d) => { console.log(String(d)); s.close(); })));
});
END
node a.js`},
	{"go", "/usr/local/go/bin/go", false, `export PATH=/usr/local/go/bin:$PATH GOFLAGS=-mod=mod GOTOOLCHAIN=local; mkdir m; cd m; go mod init m 2>/dev/null; printf 'package main\nfunc main() { c := make(chan string); go func() { c <- "ok" }(); println(<-c) }\n' >a.go; CGO_ENABLED=0 go build -o a .; ./a 2>&1`},
	{"dpkg", "dpkg-deb", false, `mkdir -p p/DEBIAN p/opt; echo x >p/opt/x; printf 'Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: a\n' >p/DEBIAN/control; dpkg-deb -b p a.deb >/dev/null; dpkg -x a.deb out; test -f out/opt/x; echo ok`},
	{"sqlite3", "sqlite3", false, `sqlite3 a.db 'pragma journal_mode=wal; create table t(x); insert into t values("ok"); select x from t;' | tail -1`},
	{"perl", "perl", false, `perl -e 'use POSIX; pipe R, W; if (!fork) { print W "ok\n"; exit } close W; print scalar <R>; wait; setpriority(0, 0, 5)'`},
	{"make", "make", false, `printf 'all: a b\n\t@echo ok\na b:\n\t@sleep 0.01\n' >Makefile; make -s -j4`},
	{"flock", "flock", false, `flock f echo ok`},
	{"setpriv", "setpriv", false, `setpriv --reuid 1000 --regid 1000 --clear-groups id -u | grep -q 1000; echo ok`},
	{"ip", "ip", false, `ip -br addr show lo >/dev/null; echo ok`},
	{"openssl", "openssl", false, `openssl genpkey -algorithm ed25519 >/dev/null; echo ok`},
	{"useradd", "useradd", false, `touch /etc/shadow /etc/login.defs; useradd -M -u 1234 someone; id -u someone | grep -q 1234; echo ok`},
}

// TestOrdinarySoftware runs, under the default profile, what people run.
func TestOrdinarySoftware(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	t.Cleanup(func() { // compilers leave much to remove
		eventually(t, 20*time.Second, "the trees are removed", func() bool { return len(list(t, filepath.Join(dir, "trash"))) == 0 })
	})
	for _, tt := range software {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sb := create(t, eng, engine.CreateOptions{Dir: "/data", Limits: engine.Limits{Memory: 2 << 30, CPUs: -1}})
			if err := sb.Command("sh", "-c", "command -v "+tt.program).Run(); err != nil {
				if why := tt.program + " is not installed in /usr: install it"; tt.always && os.Getenv("CI") != "" {
					t.Fatal(why)
				} else {
					t.Skip(why)
				}
			}
			out, err := sb.Command("sh", "-ec", tt.script).CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "ok\n") {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}

// TestCurl has curl talk to a server that is the host's, as any program in a sandbox would.
func TestCurl(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed in /usr: install it")
	}
	sb := create(t, open(t, ""), engine.CreateOptions{})
	l, err := sb.Listen(t.Context(), "tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) })}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	out, err := sb.Command("curl", "-sS", "http://127.0.0.1:8080/").CombinedOutput()
	if err != nil || string(out) != "hello" {
		t.Errorf("curl: %q, %v", out, err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != http.ErrServerClosed {
		t.Error(err)
	}
}

// BenchmarkSeccomp measures a sandbox with the default profile beside one with none, which stands as "host".
func BenchmarkSeccomp(b *testing.B) {
	eng := open(b, "")
	b.Run("create", func(b *testing.B) {
		one := func(opts engine.CreateOptions) func() {
			return func() {
				sb, err := eng.Create(b.Context(), opts)
				try(b, err)
				try(b, sb.Close())
			}
		}
		sideBySide(b, one(engine.CreateOptions{}), one(engine.CreateOptions{Seccomp: engine.SeccompUnconfined}))
	})
	confined := create(b, eng, engine.CreateOptions{})
	free := create(b, eng, engine.CreateOptions{Seccomp: engine.SeccompUnconfined})
	for name, args := range map[string][]string{
		"exec":     {"true"},
		"syscalls": {"dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=100000", "status=none"},
	} {
		run := func(sb *engine.Sandbox) func() { return func() { try(b, sb.Command(args[0], args[1:]...).Run()) } }
		b.Run(name, func(b *testing.B) { sideBySide(b, run(confined), run(free)) })
	}
	b.Run("stat", func(b *testing.B) {
		stat := func(sb *engine.Sandbox) func() {
			return func() {
				_, err := sb.FS().Stat("/tmp")
				try(b, err)
			}
		}
		sideBySide(b, stat(confined), stat(free))
	})
}
