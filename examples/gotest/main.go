// Command gotest is a small service, of which the tests are the point: each runs it in a sandbox of its own, all of
// them at once and on the same port.
//
// The service keeps notes: PUT /name stores one, GET /name gives it, and GET / lists the names.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	dir := flag.String("dir", "notes", "directory of the notes")
	flag.Parse()
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("notes in %s on http://%s", *dir, l.Addr())
	log.Fatal(http.Serve(l, notes(*dir)))
}

// notes serves the notes in a directory.
type notes string

func (n notes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name != "" && (!filepath.IsLocal(name) || strings.Contains(name, "/")) {
		http.Error(w, "a name has no slash", http.StatusBadRequest)
		return
	}
	var err error
	switch {
	case r.Method == http.MethodPut && name != "":
		err = n.put(name, http.MaxBytesReader(w, r.Body, 1<<20))
	case r.Method == http.MethodGet && name == "":
		err = n.list(w)
	case r.Method == http.MethodGet:
		err = n.get(w, name)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, "no such note", http.StatusNotFound)
	case err != nil:
		log.Print(err)
		http.Error(w, "the note can't be kept", http.StatusInternalServerError)
	}
}

func (n notes) put(name string, body io.Reader) error {
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(string(n), name), data, 0o644)
}

func (n notes) get(w io.Writer, name string) error {
	data, err := os.ReadFile(filepath.Join(string(n), name))
	if err == nil {
		_, err = w.Write(data)
	}
	return err
}

func (n notes) list(w io.Writer) error {
	entries, err := os.ReadDir(string(n))
	for _, e := range entries {
		fmt.Fprintln(w, e.Name())
	}
	return err
}
