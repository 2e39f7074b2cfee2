// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"buf.build/go/protoyaml"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/internal/testenv"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	issuer   = "https://issuer.example"
	audience = "desk"
	domain   = "payments.desk.example"
	module   = "../.."
	// segmentBytes is small, so that segments end while the agent is under load.
	segmentBytes = 128 << 10
	// startTimeout is how long a program may take to serve.
	startTimeout = 20 * time.Second
)

// The agents: as it is, and on a disk that is slow to write.
const (
	agentPlain = "writ"
	agentSlow  = "writ-slow"
)

// slowWrite makes a write to the ledger take long in its middle, so that a kill leaves a
// torn tail. It is added to the package when agentSlow is built.
const slowWrite = `package ledger

import "time"

func (f osFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b[:len(b)/2])
	if err != nil {
		return n, err
	}
	time.Sleep(5 * time.Millisecond)
	m, err := f.File.Write(b[n:])
	return n + m, err
}
`

// built is where the programs are, once somebody has asked for them.
var built struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(smallDisk); dir != "" {
		fmt.Fprintln(os.Stderr, runOnSmallDisk(dir, os.Args[1:]))
		os.Exit(3)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if built.dir != "" {
			_ = os.RemoveAll(built.dir)
		}
		os.Exit(code)
	}))
}

// program returns the path of one of the programs, built from this tree.
func program(t *testing.T, name string) string {
	t.Helper()
	built.Do(func() { built.err = build() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, name)
}

// build builds the programs as "go test" builds the packages of a plain test, so that
// it finds most of them built.
func build() (err error) {
	if built.dir, err = os.MkdirTemp("", "w"); err != nil {
		return err
	}
	// A user without rights must be able to run them too.
	if err := os.Chmod(built.dir, 0o755); err != nil {
		return err
	}
	root, err := filepath.Abs(module)
	if err != nil {
		return err
	}
	slow, overlay := filepath.Join(built.dir, "slow.go"), filepath.Join(built.dir, "overlay.json")
	text, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, "ledger", "slow_write.go"): slow}})
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(slow, []byte(slowWrite), 0o600), os.WriteFile(overlay, text, 0o600)); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"-o", built.dir + "/", "./cmd/writ", "./examples/refunddesk/payments"},
		{"-o", filepath.Join(built.dir, agentSlow), "-overlay", overlay, "./cmd/writ"},
	} {
		build := exec.Command("go", append([]string{"build"}, args...)...)
		build.Dir = root
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return nil
}

// desk is the refund desk: payments, Envoy, and an agent that is killed.
type desk struct {
	t *testing.T
	// dir has all files of the desk.
	dir string
	// config is the agent's, configFile its file.
	config     *writv1.AgentConfig
	configFile string
	// upstream is how the agent reaches its collector, nil without one.
	upstream *writv1.CollectorConnection
	// payments is the service, tap counts what reaches it.
	payments *process
	tap      *tap
	// program is the agent's; agent is the one that runs, nil when it was killed.
	program string
	agent   *process
	// clients are who calls; transport reaches Envoy.
	clients   []*client
	transport *http.Transport
}

// openDesk starts payments and Envoy, and no agent yet. The agent sends its ledger
// upstream where there is a connection; its file names are below the desk's directory.
func openDesk(t *testing.T, enforcement writv1.Enforcement, upstream *writv1.CollectorConnection) *desk {
	t.Helper()
	d := newDesk(t)
	d.startPayments()
	d.tap = newTap(t, d.payments.address)
	if upstream != nil {
		upstream.Address = "unix:" + d.path("collector.sock")
		upstream.PublicKeyFile = d.path("collector/collector.vkey")
	}
	d.upstream = upstream
	d.configure(enforcement, d.tap.address())
	d.startEnvoy()
	return d
}

// path returns that of a file of the desk.
func (d *desk) path(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

// newDesk makes the files of a desk that nothing runs for yet.
func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, dir: testenv.Dir(t), program: agentPlain, transport: &http.Transport{MaxIdleConnsPerHost: clientCount}}
	t.Cleanup(d.transport.CloseIdleConnections)
	return d
}

// configure writes the bundle, whose upstream is at the address, and the agent's
// configuration.
func (d *desk) configure(enforcement writv1.Enforcement, upstream string) {
	d.t.Helper()
	d.writeBundle(enforcement, upstream)
	d.config = &writv1.AgentConfig{
		DataDir:   d.path("data"),
		BundleDir: d.path("bundle"),
		Listeners: &writv1.AgentListeners{Envoy: "unix:" + d.path("agent.sock")},
		Identity: &writv1.IdentityConfig{Jwt: &writv1.JwtConfig{
			Issuer: issuer, Audiences: []string{audience}, JwksFile: d.makeClients(),
		}},
		Ledger:    &writv1.LedgerConfig{Origin: "desk.example/agent", SegmentBytes: segmentBytes},
		Collector: d.upstream,
		Envoy: &writv1.EnvoyConfig{
			Listener: testenv.Address(d.t), Admin: "unix:" + d.path("admin.sock"),
			AgentListener: "unix:" + d.path("egress.sock"),
		},
	}
	d.configFile = d.writeConfig("agent.yaml", d.config)
}

func (d *desk) writeConfig(name string, config proto.Message) string {
	d.t.Helper()
	text, err := protoyaml.MarshalOptions{UseProtoNames: true}.Marshal(config)
	if err != nil {
		d.t.Fatalf("write %s: %v", name, err)
	}
	return d.write(name, text)
}

func (d *desk) write(name string, text []byte) string {
	d.t.Helper()
	path := d.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// writeBundle writes what the refund desk's bundle says of payments: its protos,
// checks and budgets as they are there.
func (d *desk) writeBundle(enforcement writv1.Enforcement, upstream string) {
	d.t.Helper()
	for _, name := range []string{"protos/desk/v1/payments.proto", "checks/refunds.yaml", "budgets/calls.yaml"} {
		text, err := os.ReadFile(filepath.Join(module, "examples/refunddesk/bundle", filepath.FromSlash(name)))
		if err != nil {
			d.t.Fatal(err)
		}
		d.write("bundle/"+name, bytes.Replace(text, []byte("int64 minor = 2 ["),
			[]byte("int64 minor = 2 [(writ.v1.field).budget = {dimension: DIMENSION_MONEY, scale: 10000000}, "), 1))
	}
	// Refunds take what they give back from a budget of money too, and their bytes.
	d.write("bundle/budgets/money.yaml", []byte(`budgets:
  - {name: money, tools: [payments.issue_refund], scopes: [BUDGET_SCOPE_TENANT], dimension: DIMENSION_MONEY, limit: 1000000000000000000, window: 31536000s}
  - {name: bytes, tools: ["*"], scopes: [BUDGET_SCOPE_USER], dimension: DIMENSION_BYTES_OUT, limit: 1000000000000, window: 31536000s}
`))
	d.write("bundle/bundle.yaml", []byte("name: killtest\n"))
	d.write("bundle/grants/support.yaml", []byte(`grants:
  - name: support
    effect: GRANT_EFFECT_ALLOW
    principals: {roles: [support_agent]}
    tools: [payments.get_payment, payments.issue_refund]
`))
	d.write("bundle/catalogue.yaml", fmt.Appendf(nil, `upstreams:
  - name: payments
    address: %q
    protocol: PROTOCOL_HTTP_JSON
    domains: [%s]
    enforcement: %s
    timeout: 10s
`, upstream, domain, enforcement))
}

// makeClients makes who calls, and returns the file of the keys that their tokens
// are verified with.
func (d *desk) makeClients() string {
	d.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	key := jose.JSONWebKey{Key: private, KeyID: "k1", Algorithm: string(jose.EdDSA)}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		d.t.Fatal(err)
	}
	for number, name := range names() {
		token, err := jwt.Signed(signer).Claims(map[string]any{
			"iss": issuer, "aud": audience, "sub": "user-" + name, "tenant": name,
			"roles": []string{"support_agent"}, "exp": time.Now().Add(time.Hour).Unix(),
		}).Serialize()
		if err != nil {
			d.t.Fatal(err)
		}
		d.clients = append(d.clients, &client{desk: d, number: number, tenant: name, token: "Bearer " + token})
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "k1", Algorithm: string(jose.EdDSA), Use: "sig"}}})
	if err != nil {
		d.t.Fatal(err)
	}
	return d.write("jwks.json", keys)
}

func (d *desk) startPayments() {
	d.t.Helper()
	type money struct {
		Currency string `json:"currency"`
		Minor    int64  `json:"minor"`
	}
	type payment struct {
		Tenant        string `json:"tenant"`
		PaymentID     string `json:"payment_id"`
		Amount        money  `json:"amount"`
		CustomerEmail string `json:"customer_email"`
		CardNumber    string `json:"card_number"`
	}
	var seed []payment
	for _, name := range names() {
		seed = append(seed, payment{name, paymentID, money{"EUR", 1_000_000_000}, "cleo@customer.example", "4111111111111111"})
	}
	text, err := json.Marshal(seed)
	if err != nil {
		d.t.Fatal(err)
	}
	address := testenv.Address(d.t)
	d.payments = start(d.t, "payments", program(d.t, "payments"), "--listen", address, "--db", d.books(), "--seed", d.write("seed.json", text))
	d.payments.address = address
	d.payments.await(d.t, func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// books is the database of the payments service.
func (d *desk) books() string { return d.path("payments.db") }

// ledger is the directory of the agent's ledger.
func (d *desk) ledger() string { return d.path("data/ledger") }

func (d *desk) startEnvoy() {
	d.t.Helper()
	var said, failed bytes.Buffer
	bootstrap := exec.CommandContext(d.t.Context(), program(d.t, agentPlain), "envoy", "bootstrap", "--config", d.configFile)
	bootstrap.Stdout, bootstrap.Stderr = &said, &failed
	if err := bootstrap.Run(); err != nil {
		d.t.Fatalf("writ envoy bootstrap: %v\n%s", err, failed.String())
	}
	testenv.Start(d.t, said.Bytes(), strings.TrimPrefix(d.config.GetEnvoy().GetAdmin(), "unix:"))
}

// startAgent starts the agent on the data that the one before left.
func (d *desk) startAgent() {
	d.t.Helper()
	d.agent = start(d.t, "agent", program(d.t, d.program), "agent", "--config", d.configFile)
}

// awaitServing waits until a call gets through, and returns the calls it took.
func (d *desk) awaitServing() []*attempt {
	d.t.Helper()
	var made []*attempt
	d.agent.await(d.t, func() bool {
		probe := d.clients[0].probe()
		d.clients[0].send(d.t.Context(), probe)
		made = append(made, probe)
		return probe.succeeded()
	})
	return made
}
