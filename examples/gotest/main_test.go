package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/engine/enginetest"
)

// program builds the service once for all tests. It is static, so that it runs on any template.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "gotest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "notes")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return out, err
	}
	return os.ReadFile(path)
})

// serve starts the service in a sandbox of its own and gives a client that reaches nothing else, once it listens.
func serve(t *testing.T, opts engine.CreateOptions) (*engine.Sandbox, *http.Client) {
	t.Helper()
	sb := enginetest.New(t, opts)
	data, err := program()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, data)
	}
	if err := sb.FS().WriteFile("/opt/notes", data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := sb.Command("/opt/notes")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	if !lines.Scan() {
		t.Fatalf("the service says nothing: %v", cmd.Wait())
	}
	return sb, &http.Client{Transport: &http.Transport{DialContext: sb.DialContext}}
}

func put(t *testing.T, c *http.Client, name, text string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://127.0.0.1:8080/"+name, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func get(t *testing.T, c *http.Client, name string) (int, string) {
	t.Helper()
	resp, err := c.Get("http://127.0.0.1:8080/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func TestNotes(t *testing.T) {
	t.Parallel()
	sb, client := serve(t, engine.CreateOptions{})
	if code := put(t, client, "todo", "water the plants"); code != http.StatusOK {
		t.Errorf("put: status %d", code)
	}
	if code, text := get(t, client, "todo"); code != http.StatusOK || text != "water the plants" {
		t.Errorf("get: status %d, %q", code, text)
	}
	if data, err := sb.FS().ReadFile("notes/todo"); err != nil || string(data) != "water the plants" {
		t.Errorf("the file: %q, %v", data, err)
	}
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	_, client := serve(t, engine.CreateOptions{})
	if code, text := get(t, client, ""); code != http.StatusOK || text != "" {
		t.Errorf("list: status %d, %q; want none: the other tests' notes are theirs", code, text)
	}
	if code, _ := get(t, client, "todo"); code != http.StatusNotFound {
		t.Errorf("get: status %d, want 404", code)
	}
}

// TestLostDirectory takes the service's directory away, as may happen in the field.
func TestLostDirectory(t *testing.T) {
	t.Parallel()
	sb, client := serve(t, engine.CreateOptions{})
	if err := sb.FS().RemoveAll("notes"); err != nil {
		t.Fatal(err)
	}
	if code := put(t, client, "todo", "x"); code != http.StatusNotFound {
		t.Errorf("put: status %d, want 404", code)
	}
}
