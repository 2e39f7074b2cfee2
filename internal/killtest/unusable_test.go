// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// nobody is the user that the agent runs as where the tests are root's: root may
// write everywhere.
const nobody = 65534

func TestTheAgentDoesNotStartWithoutALedgerThatItCanWrite(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		// spoil makes the data directory unusable.
		spoil func(t *testing.T, d *desk)
		want  string
	}{
		"a data directory below a file": {
			func(t *testing.T, d *desk) { d.put(t, "data", 0o600) },
			"make the data directory",
		},
		"a data directory that may not be written": {
			func(t *testing.T, d *desk) { d.put(t, "data", fs.ModeDir|0o500) },
			"permission denied",
		},
		"a ledger that is a file": {
			func(t *testing.T, d *desk) { d.put(t, "data/ledger", 0o600) },
			"not a directory",
		},
		"a ledger that may not be written": {
			func(t *testing.T, d *desk) { d.put(t, "data/ledger", fs.ModeDir|0o500) },
			"open the ledger",
		},
		"a ledger whose segment may not be read": {
			func(t *testing.T, d *desk) {
				d.runOnce(t)
				for _, name := range segments(t, d.ledger()) {
					if err := os.Chmod(filepath.Join(d.ledger(), name), 0); err != nil {
						t.Fatal(err)
					}
				}
			},
			"open the ledger",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.configure(writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ, "127.0.0.1:9")
			d.hand(t)
			c.spoil(t, d)
			p := d.startUnprivileged(t)
			select {
			case <-p.exited:
			case <-time.After(startTimeout):
				t.Fatalf("the agent runs, and says:\n%s", p.output.String())
			}
			said := p.output.String()
			if p.err == nil || p.command.ProcessState.ExitCode() != 2 || !strings.Contains(said, "writ: error: ") || !strings.Contains(said, c.want) {
				t.Errorf("the agent ended with %v, and said:\n%swant exit code 2, \"writ: error\" and %q", p.err, said, c.want)
			}
			if _, err := os.Stat(d.socket()); err == nil {
				t.Error("the agent has listened for Envoy")
			}
		})
	}
}

func TestALedgerThatWasThrownAwayIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.configure(writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ, "127.0.0.1:9")
	d.hand(t)
	d.runOnce(t)
	before := verifierOf(t, d.ledger()).Name()
	if err := os.RemoveAll(d.ledger()); err != nil {
		t.Fatal(err)
	}
	d.runOnce(t)
	if after := verifierOf(t, d.ledger()).Name(); after == before {
		t.Errorf("a new ledger has the name %s of the one that is gone", after)
	}
}

// hand gives all files of the desk to the user that the agent runs as.
func (d *desk) hand(t *testing.T) {
	t.Helper()
	if err := os.Mkdir(d.config.GetDataDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		return
	}
	err := filepath.WalkDir(d.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// put has a file or an empty directory stand where the agent's own was.
func (d *desk) put(t *testing.T, name string, mode fs.FileMode) {
	t.Helper()
	path := d.path(name)
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	create := func() error { return os.WriteFile(path, []byte("a file\n"), mode.Perm()) }
	if mode.IsDir() {
		create = func() error { return os.Mkdir(path, mode.Perm()) }
	}
	if err := create(); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
}

// startUnprivileged starts the agent as a user that permissions bind.
func (d *desk) startUnprivileged(t *testing.T) *process {
	t.Helper()
	command := exec.Command(program(t, agentPlain), "agent", "--config", d.configFile)
	command.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		command.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return launch(t, "agent", command)
}

// runOnce has an agent serve and stop in good order.
func (d *desk) runOnce(t *testing.T) {
	t.Helper()
	p := d.startUnprivileged(t)
	p.await(t, func() bool {
		conn, err := net.Dial("unix", d.socket())
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	p.stop(t)
}

// socket is where the agent listens for Envoy.
func (d *desk) socket() string {
	return strings.TrimPrefix(d.config.GetListeners().GetEnvoy(), "unix:")
}
