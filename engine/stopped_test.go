package engine_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// TestStoppedAtStart has a guest stop the agent's children before they execute a program. They are killed, by the host if
// need be, as the agent can't collect garbage meanwhile: the reads have it want to. What ends then is told.
func TestStoppedAtStart(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	putSelf(t, sb)
	const (
		stuck = 2 * time.Second  // the agent waits for 3 s
		most  = 12 * time.Second // and the host for 4 to 6
	)
	for range 50 {
		other := sb.Command("sleep", "1")
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		stopper, _ := guest(t, sb, "stopper")
		took := make(chan time.Duration)
		stopped := sb.Command("true")
		go func() {
			_ = stopped.Start()
			took <- time.Since(began)
		}()
		var reads sync.WaitGroup
		reading, enough := context.WithCancel(t.Context())
		reads.Go(func() {
			for reading.Err() == nil {
				if _, err := sb.FS().ReadDir("/etc"); err != nil {
					t.Error(err)
					return
				}
			}
		})
		err := other.Wait()
		ended := time.Since(began)
		hung := <-took > stuck
		enough()
		reads.Wait()
		if kerr := stopper.Kill(); err != nil || kerr != nil {
			t.Fatalf("the other: %v; kill: %v", err, kerr)
		}
		_ = stopped.Kill() // it may have been stopped later, or have ended
		_ = stopped.Wait()
		if err := sb.Command("true").Run(); err != nil {
			t.Fatalf("a command afterwards: %v", err)
		}
		if hung {
			if ended > most {
				t.Errorf("it was told after %v that another command had ended", ended)
			}
			return
		}
	}
	t.Error("no command could be stopped at its start")
}

func init() {
	helpers["stopper"] = func([]string) error {
		own := os.Getpid()
		fmt.Println(own)
		for {
			for pid := own + 1; pid < own+64; pid++ {
				if _, err := os.Lstat(fmt.Sprint("/proc/self/task/", pid)); err != nil { // no thread of its own, see kill(2)
					_ = syscall.Kill(pid, syscall.SIGSTOP)
				}
			}
		}
	}
}
