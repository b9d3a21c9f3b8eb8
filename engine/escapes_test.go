package engine_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

// known is what has been broken before, elsewhere, and the folders of the corpus that try it here.
var known = map[string][]string{
	"CVE-2014-3519":               {"file-handle"},
	"CVE-2018-15664":              {"planted-link-read", "planted-link-write", "planted-link-archive", "planted-link-extract", "race-link"},
	"CVE-2019-5736":               {"agent-binary", "agent-interpreter"},
	"CVE-2020-15257":              {"abstract-socket"},
	"CVE-2022-0492":               {"release-agent", "cgroup-files"},
	"CVE-2024-21626":              {"leaked-descriptors", "working-directory", "agent-descriptors"},
	"CVE-2024-23652":              {"planted-link-remove", "planted-link-clean-up"},
	"CVE-2024-28185":              {"planted-link-read", "planted-link-write"},
	"CVE-2024-28189":              {"planted-link-chown", "planted-link-chmod"},
	"CVE-2025-31133":              {"masked-paths", "template-dev-null-link"},
	"CVE-2025-52565":              {"template-dev-console-link"},
	"CVE-2025-52881":              {"template-proc-link", "template-sys-link", "planted-proc-link", "planted-proc-write"},
	"CVE-2026-39822":              {"planted-link-list"},
	"CVE-2026-41579":              {"template-dev-link", "template-dev-relative-link"},
	"CVE-2026-47766":              {"template-dev-link", "template-dev-relative-link"},
	"TIOCSTI":                     {"terminal-input"},
	"keyrings":                    {"keyring"},
	"AF_VSOCK":                    {"vsock"},
	"io_uring":                    {"io-uring"},
	"another architecture":        {"i386-calls", "x32-calls"},
	"shared /dev/shm":             {"shared-memory"},
	"file locks on shared inodes": {"file-lock"},
}

// TestEscapes makes every attempt in a sandbox as it is by default. None gets out.
func TestEscapes(t *testing.T) {
	keepSettings(t)
	eng, secret := escapesEngine(t)
	for _, a := range attempts(t) {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			a.needArch(t)
			c := newCanary(t, secret)
			if a.Host == "template" {
				a.mustHold(t, workshop{eng: eng}, c, "root")
				return
			}
			b := makeBox(t, eng, a, c)
			for _, user := range a.users() {
				a.mustHold(t, b, c, user)
			}
			if a.Host != "end" {
				b.checkAgent(t)
			}
		})
	}
}

// TestEscapesWeakened makes the attempts where something is left out that holds them. There they succeed, which
// shows that they are attempts.
func TestEscapesWeakened(t *testing.T) {
	keepSettings(t)
	t.Cleanup(programs.Clear) // some 30 MiB, which tests of memory after this need not carry
	eng, secret := escapesEngine(t)
	for _, a := range attempts(t) {
		if a.Weakened == "" {
			continue // and about.json says why; TestEscapesCorpus has seen to that
		}
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			a.needArch(t)
			c := newCanary(t, secret)
			a.mustSucceed(t, settings[a.Weakened].make(t, eng, a, c), c, a.As[0])
		})
	}
}

// escapesEngine gives an engine whose state directory's name has the secret, as has the environment of this process.
func escapesEngine(t *testing.T) (*engine.Engine, string) {
	t.Helper()
	needRoot(t)
	secret := rand.Text()
	t.Setenv("NESTBOX_TEST_SECRET", secret)
	putKey(t, secret)
	dir := filepath.Join(stateDir(t), "state-"+secret)
	t.Cleanup(func() { checkNothingLeft(t, dir) })
	return open(t, dir), secret
}

// users are those it runs as: where time is short, the first.
func (a attempt) users() []string {
	if testing.Short() {
		return a.As[:1]
	}
	return a.As
}

// perform makes the attempt in a ground.
func (a attempt) perform(t *testing.T, w ground, c *canary, user string) (ending, []string) {
	t.Helper()
	var f func(path string) string
	if a.Host != "" {
		f = func(path string) string { return act(t, w.files(), c, a.Host, path) }
	}
	o, err := w.start(t, a, c, user).finish(f)
	if err != nil {
		t.Fatalf("as %s it could not be made: %v\n%s", user, err, o.output)
	}
	return o, c.reached(t, o)
}

func (a attempt) mustHold(t *testing.T, w ground, c *canary, user string) {
	t.Helper()
	o, reached := a.perform(t, w, c, user)
	if o.word == "escaped" || o.word == "planted" && a.Host == "" || len(reached) > 0 {
		t.Errorf("%s, as %s: it says %q, and has reached %q\n%s", a.Tries, user, o.word, reached, o.output)
	}
}

func (a attempt) mustSucceed(t *testing.T, w ground, c *canary, user string) {
	t.Helper()
	o, reached := a.perform(t, w, c, user)
	if o.word == "absent" {
		t.Skipf("this kernel can't show it: %s", o.output)
	}
	if a.Reaches == "" && o.word != "escaped" || a.Reaches != "" && !slices.Contains(reached, a.Reaches) {
		t.Errorf("%s, as %s, with %s: it says %q, and has reached %q, want %q\n%s\n%s", a.Tries, user, a.Weakened, o.word, reached, a.Reaches, o.output, o.host)
	}
}

// TestEscapesCorpus looks at what the corpus says of itself.
func TestEscapesCorpus(t *testing.T) {
	all := attempts(t)
	shown := 0
	var names []string
	for _, a := range all {
		names = append(names, a.name)
		a.check(t)
		if a.Weakened != "" {
			shown++
		}
	}
	if len(all) < 45 || shown < 30 {
		t.Errorf("%d attempts, of which %d are shown to be real; want 45 and 30 at least", len(all), shown)
	}
	for what, folders := range known {
		for _, name := range folders {
			if i := slices.Index(names, name); i < 0 || !strings.Contains(all[i].Class, what) {
				t.Errorf("%s: there is no %s that says it stands for it", what, name)
			}
		}
	}
	t.Logf("%d attempts, of which %d are shown to be real", len(all), shown)
}

// check tells what is wrong with an attempt's description.
func (a attempt) check(t *testing.T) {
	t.Helper()
	var programs []string
	for _, name := range []string{"attempt.sh", "attempt.c"} {
		if _, err := os.Stat(filepath.Join(a.dir, name)); err == nil {
			programs = append(programs, name)
		}
	}
	_, weaker := settings[a.Weakened]
	for what, wrong := range map[string]bool{
		"not one program":                   len(programs) != 1,
		"no word on what it tries":          a.Tries == "",
		"no CVE or class":                   a.Class == "",
		"no users, or unknown ones":         len(a.As) == 0 || slices.ContainsFunc(a.As, func(u string) bool { return u != "root" && u != "user" }),
		"an action that the host hasn't":    a.Host != "" && hostActions[a.Host] == nil,
		"a setting that there isn't":        a.Weakened != "" && !weaker,
		"not either a setting or a reason":  (a.Weakened == "") == (a.WhyNot == ""),
		"something reached in no setting":   a.Reaches != "" && a.Weakened == "",
		"something to reach that isn't one": a.Reaches != "" && !slices.Contains([]string{"secret", "files", "process", "hang", "lock"}, a.Reaches),
	} {
		if wrong {
			t.Errorf("%s: %s: %+v", a.name, what, a)
		}
	}
}
