// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	f_note "github.com/transparency-dev/formats/note"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/mod/sumdb/note"
	_ "modernc.org/sqlite" // the driver

	"github.com/writ-dev/writ/internal/testenv"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// witnessPatience bounds how long anything with witnesses may take.
const witnessPatience = 30 * time.Second

// foreign is a program that nobody here wrote.
type foreign struct {
	command *exec.Cmd
	said    lockedText
}

// tlogTool is the path of a program that .ci/tlog.mod pins.
func tlogTool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../.cache/bin", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: run \"make .cache/.tlog\"", err)
	}
	return path
}

// startForeign runs a program until the test ends.
func startForeign(t *testing.T, name string, args ...string) *foreign {
	t.Helper()
	f := &foreign{command: exec.Command(tlogTool(t, name), args...)} //nolint:gosec // the test's own
	f.command.Stdout, f.command.Stderr = &f.said, &f.said
	if err := f.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.kill)
	return f
}

func (f *foreign) kill() {
	if f.command.ProcessState == nil {
		_ = f.command.Process.Kill()
		_ = f.command.Wait()
	}
}

// cosigner is a witness: its keys and where it listens.
type cosigner struct {
	name, address string
	private       ed25519.PrivateKey
	// skey and vkey are its key in the forms of C2SP signed-note, vkey that of a cosigner.
	skey, vkey string
}

func newCosigner(t *testing.T, name string) *cosigner {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := func(algorithm byte, key []byte) (id, text string) {
		sum := sha256.Sum256(append([]byte(name+"\n"), append([]byte{algorithm}, public...)...))
		return fmt.Sprintf("%08x", sum[:4]), base64.StdEncoding.EncodeToString(append([]byte{algorithm}, key...))
	}
	id, secret := form(1, private.Seed())
	cosignID, open := form(4, public)
	return &cosigner{
		name: name, address: testenv.Address(t), private: private,
		skey: "PRIVATE+KEY+" + name + "+" + id + "+" + secret, vkey: name + "+" + cosignID + "+" + open,
	}
}

// litewitness runs torchwood's witness, whose key an SSH agent holds.
func (c *cosigner) litewitness(t *testing.T, dir string) (program *foreign, database string) {
	t.Helper()
	ring, socket := agent.NewKeyring(), filepath.Join(dir, "ssh")
	if err := ring.Add(agent.AddedKey{PrivateKey: c.private}); err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, conn) }()
		}
	}()
	public, err := ssh.NewPublicKey(c.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	database = filepath.Join(dir, "lite.db")
	return startForeign(t, "litewitness", "-db", database, "-name", c.name, "-ssh-agent", socket,
		"-listen", c.address, "-key", ssh.FingerprintSHA256(public)), database
}

// knowLog makes a log known to a litewitness, as witnessctl add-log and add-key do.
func knowLog(t *testing.T, database, vkey string) {
	t.Helper()
	db, err := sql.Open("sqlite", database+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	origin, _, _ := strings.Cut(vkey, "+")
	empty := sha256.Sum256(nil)
	for query, args := range map[string][]any{
		"INSERT OR IGNORE INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)": {origin, base64.StdEncoding.EncodeToString(empty[:])},
		"INSERT INTO key (origin, key) VALUES (?, ?)":                               {origin, vkey},
	} {
		if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
}

// omniwitness runs transparency.dev's witness, for one log.
func (c *cosigner) omniwitness(t *testing.T, dir, logKey, logURL string) *foreign {
	t.Helper()
	origin, _, _ := strings.Cut(logKey, "+")
	key, logs := filepath.Join(dir, "omni.key"), filepath.Join(dir, "logs.yaml")
	if err := errors.Join(
		os.WriteFile(key, []byte(c.skey), 0o600),
		os.WriteFile(logs, fmt.Appendf(nil, "Logs:\n  - Origin: %s\n    URL: %s\n    PublicKey: %s\n    Feeder: none\n", origin, logURL, logKey), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return startForeign(t, "omniwitness", "--listen", c.address, "--metrics_listen", "", "--db_file", filepath.Join(dir, "omni.db"),
		"--private_key_path", key, "--additional_logs", logs)
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool, said ...*foreign) {
	t.Helper()
	deadline := time.After(witnessPatience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			for _, f := range said {
				t.Log(f.said.String())
			}
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// published is the checkpoint that the log serves, and its size; nothing before the first.
func published(t *testing.T, logURL string) (raw []byte, size int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), witnessPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, logURL+"/checkpoint", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if raw, err = io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK {
		return nil, 0
	}
	if _, err := fmt.Sscan(strings.SplitN(string(raw), "\n", 3)[1], &size); err != nil {
		t.Fatalf("%v in\n%s", err, raw)
	}
	return raw, size
}

func TestOthersReadCosignAndCheckTheCollectorsLog(t *testing.T) {
	t.Parallel()
	a, lite, omni := &audited{dir: testenv.Dir(t)}, newCosigner(t, "witness.test/lite"), newCosigner(t, "witness.test/omni")
	address := testenv.Address(t)
	policy := fmt.Sprintf("witness lite %s http://%s/\nwitness omni %s http://%s/\ngroup both all lite omni\nquorum both\n", lite.vkey, lite.address, omni.vkey, omni.address)
	if err := os.WriteFile(a.path("policy"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	// The witnesses are not there yet: nobody waits for them.
	stop := a.collect(t, fmt.Sprintf("head_log: {origin: log.test/desk, listener: %q, witness_policy_file: %s, checkpoint_interval: 0.2s}\n", address, a.path("policy")))
	text, err := os.ReadFile(a.path("collector/head_log/log.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	logKey, logURL := strings.TrimSpace(string(text)), "http://"+address
	liteProgram, database := lite.litewitness(t, a.dir)
	eventually(t, "litewitness listens", func() bool { return strings.Contains(liteProgram.said.String(), "listening") }, liteProgram)
	knowLog(t, database, logKey)
	omniProgram := omni.omniwitness(t, a.dir, logKey, logURL)
	t.Run("play", func(t *testing.T) {
		a.play(t, func(t *testing.T, pay func() *writv1.Decision) {
			var raw []byte
			eventually(t, "a checkpoint over the agent's heads is cosigned", func() (is bool) {
				var size int
				raw, size = published(t, logURL)
				return size > 1
			}, liteProgram, omniProgram)
			cosigned(t, raw, logKey, lite, omni)
			checked(t, a, logKey, logURL)
			// A witness that is gone holds checkpoints up, and no acknowledgement.
			liteProgram.kill()
			if decision := pay(); decision.GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
				t.Errorf("without its witness the collector acknowledges nothing: %v", decision)
			}
		})
	})
	stop()
	a.verifyCosigned(t)
}

// cosigned has a library of others verify the signatures on a checkpoint.
func cosigned(t *testing.T, raw []byte, logKey string, witnesses ...*cosigner) {
	t.Helper()
	own, err := note.NewVerifier(logKey)
	if err != nil {
		t.Fatal(err)
	}
	keys := []note.Verifier{own}
	for _, w := range witnesses {
		key, err := f_note.NewVerifierForCosignatureV1(w.vkey)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	opened, err := note.Open(raw, note.VerifierList(keys...))
	if err != nil || len(opened.Sigs) != len(keys) {
		t.Fatalf("%v: of %d signatures that were wanted the checkpoint has\n%s", err, len(keys), raw)
	}
}

// checked has Tessera's fsck check the log, as it is served.
func checked(t *testing.T, a *audited, logKey, logURL string) {
	t.Helper()
	if err := os.WriteFile(a.path("log.vkey"), []byte(logKey), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), witnessPatience)
	defer cancel()
	out, err := exec.CommandContext(ctx, tlogTool(t, "fsck"), "--ui=false", "--storage_url", logURL+"/", "--public_key", a.path("log.vkey")).CombinedOutput() //nolint:gosec // the test's own
	if err != nil || !bytes.Contains(out, []byte("Successfully fsck'd log")) {
		t.Errorf("fsck: %v\n%s", err, out)
	}
}

// verifyCosigned verifies the store with its log: what was stored after the witness was
// gone is still to come.
func (a *audited) verifyCosigned(t *testing.T) {
	t.Helper()
	out, err := a.run(t, "writ verify --store collector --key agent.vkey --log-key log.vkey --witnesses policy --checkpoint collector/head_log/tiles/checkpoint -o json")
	var found verification
	if err == nil {
		err = json.Unmarshal([]byte(out), &found)
	}
	if err != nil || !found.Log.Verified || found.Log.Signatures != 3 || found.Log.Size < 2 || found.Log.Pending < 1 {
		t.Errorf("writ verify: %v\n%s", err, out)
	}
	other := newCosigner(t, "witness.test/other")
	if err := os.WriteFile(a.path("policy"), fmt.Appendf(nil, "witness other %s http://127.0.0.1:1/\nquorum other\n", other.vkey), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := a.run(t, "writ verify --store collector --witnesses policy"); err == nil || !strings.Contains(out, "has not the cosignatures") {
		t.Errorf("a witness that did not cosign is not missed: %v\n%s", err, out)
	}
}
