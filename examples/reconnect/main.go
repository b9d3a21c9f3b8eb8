// Command reconnect tells the story of a sandbox that outlives the process that made it: it creates one, keeps it
// alive, closes its handle, and starts itself again as a second process that finds the sandbox by its ID. It prints
// each step with the time that the step took.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"time"

	"github.com/nestbox/nestbox/engine"
)

func main() {
	ctx := context.Background()
	var err error
	if len(os.Args) == 3 && os.Args[1] == "second" {
		err = second(ctx, os.Args[2])
	} else {
		err = first(ctx)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// open opens the engine on the state directory that both processes share.
func open(ctx context.Context) (*engine.Engine, error) {
	return engine.Open(ctx, engine.Options{Dir: os.Getenv("NESTBOX_DIR")}) // empty: /var/lib/nestbox
}

func first(ctx context.Context) error {
	step := steps("first")
	eng, err := open(ctx)
	if err != nil {
		return err
	}
	defer eng.Close()
	step("opened the engine")

	sb, err := eng.Create(ctx, engine.CreateOptions{Metadata: map[string]string{"user": "42"}})
	if err != nil {
		return err
	}
	step("created " + sb.ID())
	if err := sb.FS().WriteFile("hello.txt", []byte("Hello World!"), 0o644); err != nil {
		return err
	}
	step("wrote hello.txt")
	out, err := sb.Command("wc", "-c", "hello.txt").Output()
	if err != nil {
		return err
	}
	step(fmt.Sprintf("wc says %q", out))
	if err := sb.KeepAlive(ctx, 2*time.Minute); err != nil {
		return err
	}
	step("kept alive for two minutes")
	if err := sb.Close(); err != nil {
		return err
	}
	step("closed the handle; the sandbox stays")

	cmd := exec.CommandContext(ctx, "/proc/self/exe", "second", sb.ID())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

func second(ctx context.Context, id string) error {
	step := steps("second")
	eng, err := open(ctx)
	if err != nil {
		return err
	}
	defer eng.Close()
	step("opened the engine")

	sb, err := eng.Reconnect(ctx, id)
	if err != nil {
		return err
	}
	step("reconnected to " + sb.ID())
	data, err := sb.FS().ReadFile("hello.txt")
	if err != nil {
		return err
	}
	step(fmt.Sprintf("read %q", data))
	lease, err := sb.Lease(ctx)
	if err != nil {
		return err
	}
	step(fmt.Sprintf("its metadata is %v", lease.Metadata))
	if err := sb.KeepAlive(ctx, 0); err != nil {
		return err
	}
	step("cancelled the keep-alive")
	if err := sb.Close(); err != nil {
		return err
	}
	step("closed the last handle; the sandbox is gone")
	return nil
}

// steps gives a function that prints a step of the process with its time.
func steps(process string) func(string) {
	last := time.Now()
	return func(what string) {
		fmt.Printf("%-6s %9.3f ms  %s\n", process, float64(time.Since(last).Microseconds())/1000, what)
		last = time.Now()
	}
}
