package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
)

// A sandbox outlives its handle, and is found again by its ID.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "nestbox-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	eng, err := engine.Open(ctx, engine.Options{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer eng.Close()

	sb, err := eng.Create(ctx, engine.CreateOptions{Metadata: map[string]string{"user": "42"}})
	if err != nil {
		log.Fatal(err)
	}
	if err := sb.FS().WriteFile("hello.txt", []byte("Hello World!"), 0o644); err != nil {
		log.Fatal(err)
	}
	out, err := sb.Command("wc", "-c", "hello.txt").Output()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", out)
	if err := sb.KeepAlive(ctx, 2*time.Minute); err != nil {
		log.Fatal(err)
	}
	if err := sb.Close(); err != nil { // the sandbox stays
		log.Fatal(err)
	}

	again, err := eng.Reconnect(ctx, sb.ID()) // here, or in another process
	if err != nil {
		log.Fatal(err)
	}
	data, err := again.FS().ReadFile("hello.txt")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", data)
	if err := again.Kill(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 12 hello.txt
	// Hello World!
}

// A command gives its output, and as os/exec has it, an *ExitError when it ends with another code than 0.
func ExampleSandbox_CommandContext() {
	run := func(ctx context.Context, sb *engine.Sandbox) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		cmd := sb.CommandContext(ctx, "python3", "main.py")
		cmd.Dir = "/home/user"
		cmd.User = "user"
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		var exit *engine.ExitError
		switch {
		case errors.As(err, &exit):
			fmt.Printf("%v: %s", exit, exit.Stderr)
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Printf("%s", out)
		}
	}
	_ = run
}

// A shell on a terminal: what is written to the PTY is typed, what is read from it is shown.
func ExampleCmd_StartPTY() {
	shell := func(sb *engine.Sandbox, resized <-chan engine.WindowSize) error {
		cmd := sb.Command("bash", "-i")
		pty, err := cmd.StartPTY(engine.WindowSize{Rows: 24, Cols: 80})
		if err != nil {
			return err
		}
		defer pty.Close()
		go func() { _, _ = io.Copy(pty, os.Stdin) }() // a terminal in raw mode, or a web socket
		go func() {
			for size := range resized {
				_ = pty.Resize(size)
			}
		}()
		shown := make(chan struct{})
		go func() {
			defer close(shown)
			_, _ = io.Copy(os.Stdout, pty)
		}()
		err = cmd.Wait()
		// What the shell left running may keep the terminal open, and go on writing.
		_ = pty.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		<-shown
		return err
	}
	_ = shell
}

// A build goes on when the process that started it has died. Another finds it, and gets what it wrote.
func ExampleSandbox_Attach() {
	begin := func(ctx context.Context, sb *engine.Sandbox) (pid int, err error) {
		if err := sb.KeepAlive(ctx, 30*time.Minute); err != nil {
			return 0, err
		}
		cmd := sb.Command("make", "all")
		cmd.Spool = 1 << 20
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Pid(), sb.Close()
	}
	finish := func(ctx context.Context, eng *engine.Engine, id string, pid int) error {
		sb, err := eng.Reconnect(ctx, id)
		if err != nil {
			return err
		}
		defer sb.Close()
		cmd, err := sb.Attach(ctx, pid)
		if err != nil {
			return err
		}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run() // replays the last MiB, follows, and gives make's end
	}
	_, _ = begin, finish
}

// List finds sandboxes by their metadata, newest first.
func ExampleEngine_List() {
	list := func(ctx context.Context, eng *engine.Engine) error {
		for l, err := range eng.List(ctx, lease.Query{
			Metadata: map[string]string{"user": "42"},
			States:   []lease.State{lease.Running, lease.Paused},
		}) {
			if err != nil {
				return err
			}
			fmt.Println(l.ID, l.CreatedAt)
		}
		return nil
	}
	_ = list
}

// DialContext lets an HTTP client reach a server that runs in a sandbox without a network.
func ExampleSandbox_DialContext() {
	fetch := func(sb *engine.Sandbox) error {
		client := &http.Client{Transport: &http.Transport{DialContext: sb.DialContext}}
		defer client.CloseIdleConnections()
		resp, err := client.Get("http://localhost:8000/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		fmt.Println(resp.Status)
		return nil
	}
	_ = fetch
}

// Listen lets a server of the host's program serve what runs in a sandbox, and nobody else.
func ExampleSandbox_Listen() {
	serve := func(ctx context.Context, sb *engine.Sandbox) error {
		l, err := sb.Listen(ctx, "tcp", "127.0.0.1:80")
		if err != nil {
			return err
		}
		err = http.Serve(l, http.FileServer(http.Dir("public")))
		if errors.Is(err, net.ErrClosed) { // so was the handle, or the sandbox has ended
			return nil
		}
		return err
	}
	_ = serve
}

// A paused sandbox takes no processor time, and is as it was when it is resumed.
func ExampleSandbox_Pause() {
	overnight := func(ctx context.Context, sb *engine.Sandbox) error {
		if err := sb.Pause(ctx); err != nil {
			return err
		}
		// Commands and files are engine.ErrPaused now.
		return sb.Resume(ctx)
	}
	_ = overnight
}

// Events tell what happens in every process that uses the state directory.
func ExampleEngine_Events() {
	watch := func(ctx context.Context, eng *engine.Engine) {
		for ev := range eng.Events(ctx) {
			if ev.Kind == lease.EventEnded {
				fmt.Println(ev.ID, "was", ev.EndReason)
			}
		}
	}
	_ = watch
}

// A server keeps sandboxes ready, so that nobody waits for one to be made.
func ExamplePoolSpec() {
	ctx := context.Background()
	opts := engine.CreateOptions{User: "user", Limits: engine.Limits{Memory: 256 << 20}}
	eng, err := engine.Open(ctx, engine.Options{Pool: []engine.PoolSpec{{Create: opts, Size: 8, Warmup: []string{"python3", "-c", "pass"}}}})
	if err != nil {
		log.Fatal(err)
	}
	defer eng.Close()

	opts.Metadata = map[string]string{"request": "7"}
	sb, err := eng.Create(ctx, opts)
	if err != nil {
		log.Fatal(err)
	}
	defer sb.Close()
	out, err := sb.Command("python3", "-c", "print(6 * 7)").Output()
	fmt.Printf("%s %v\n", out, err)
}
