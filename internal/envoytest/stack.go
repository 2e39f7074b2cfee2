// SPDX-License-Identifier: Apache-2.0

// Package envoytest starts the whole of Envoy's face for tests: an agent with a
// ledger and a bundle, the services of the filters, a real Envoy with the
// configuration made from the bundle's catalogue, and two upstreams, a payments
// API and an MCP server, which remember what reached them.
//
//	stack := envoytest.Start(t, envoytest.Options{Enforcement: writv1.Enforcement_ENFORCEMENT_EXT_PROC})
//	answer := stack.Do(stack.Refund(4200))
//
// It is for tests only.
package envoytest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/envoy"
	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/internal/testenv"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/token"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
	"github.com/writ-dev/writ/wire"
)

// Limits of the stack.
const (
	// BodyBytes bounds request bodies.
	BodyBytes = 64 << 10
	// ResponseBytes bounds responses.
	ResponseBytes = 128 << 10
)

// ledgerSize bounds the stack's ledger.
const ledgerSize = 64 << 20

// Options says what stack to start.
type Options struct {
	// Enforcement is the filters of both routes.
	Enforcement writv1.Enforcement
	// Token is the kind of decision token that both routes ask for; empty is none.
	Token string
	// Change changes Envoy's configuration before it starts; nil leaves it.
	Change func(config string) string
	// Callers is how callers prove who they are.
	Callers Callers
	// Keys is the directory of the tenants' keys, so that several stacks may share
	// them; empty is one of the stack's own.
	Keys string
	// Files are further files of the bundle.
	Files map[string]string
	// Alone leaves Envoy out: the test speaks to the filters' services itself.
	Alone bool
}

// Callers is how callers prove who they are.
type Callers int

const (
	// CallersWithTokens present a user's token over plain HTTP.
	CallersWithTokens Callers = iota
	// CallersWithCertificates present a workload's certificate.
	CallersWithCertificates
)

// Stack is what was started. It ends with its test.
type Stack struct {
	t testing.TB
	// Config is the agent's configuration.
	Config *writv1.AgentConfig
	// Agent decides, Ledger has its records.
	Agent  *agent.Agent
	Ledger *ledger.Ledger
	// Face is the filters' services.
	Face *envoy.Face
	// Payments and Files are the upstreams.
	Payments, Files *Upstream
	// Issuer signs users' tokens.
	Issuer *Issuer
	// Proxy is Envoy, Address where it listens.
	Proxy   *testenv.Envoy
	Address string
	// TokenKeys is the file of the keys that a verifier of decision tokens trusts.
	TokenKeys string
	// Socket is the unix socket of the filters' services.
	Socket string
	// Workload is what callers with certificates are.
	Workload string

	scheme   string
	client   *http.Client
	approver *approvals.Key
}

// Start starts a stack.
func Start(t testing.TB, options Options) *Stack {
	t.Helper()
	s := &Stack{
		t: t, Payments: newUpstream(t, payments()), Files: newUpstream(t, files()), Issuer: newIssuer(t),
		Address: testenv.Address(t), scheme: "http", client: &http.Client{Timeout: 20 * time.Second},
	}
	bundle, err := bundles.LoadDir(t.Context(), writeBundle(t, catalogueOf(s.Payments.address(), s.Files.address(), options.Enforcement, options.Token), options.Files), bundles.Options{})
	if err != nil {
		t.Fatalf("load the bundle: %v", err)
	}
	config := s.config(testenv.Dir(t))
	if options.Callers == CallersWithCertificates {
		s.useCertificates(config)
	}
	s.Config = config
	if options.Keys == "" {
		options.Keys = filepath.Join(config.GetDataDir(), "keys")
	}
	s.startAgent(bundle, config, options.Keys)
	s.startFace(config)
	if !options.Alone {
		s.startEnvoy(bundle.Catalogue(), config, options.Change)
	}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// config is the agent's, with everything in dir.
func (s *Stack) config(dir string) *writv1.AgentConfig {
	return &writv1.AgentConfig{
		DataDir:   filepath.Join(dir, "data"),
		Listeners: &writv1.AgentListeners{Envoy: "unix:" + filepath.Join(dir, "agent.sock")},
		Identity: &writv1.IdentityConfig{Jwt: &writv1.JwtConfig{
			Issuer: issuer, Audiences: []string{audience}, JwksFile: s.Issuer.keyFile,
		}},
		Limits: &writv1.AgentLimits{BodyBytes: BodyBytes, ResponseBytes: ResponseBytes},
		Envoy: &writv1.EnvoyConfig{
			Listener: s.Address, Admin: "unix:" + filepath.Join(dir, "admin.sock"),
			AgentListener: "unix:" + filepath.Join(dir, "egress.sock"),
		},
	}
}

func (s *Stack) startAgent(bundle *policy.Bundle, config *writv1.AgentConfig, keysDir string) {
	s.t.Helper()
	state := agent.NewState(10_000)
	log, _, err := ledger.Open(ledger.Options{Dir: filepath.Join(config.GetDataDir(), "ledger"), Origin: "envoytest", MaxBytes: ledgerSize, OnRecord: state.Fold})
	if err != nil {
		s.t.Fatalf("open the ledger: %v", err)
	}
	s.Ledger = log
	keys, err := agent.OpenKeys(keysDir)
	if err != nil {
		s.t.Fatalf("open the keys: %v", err)
	}
	signer, err := token.OpenKey(config.GetDataDir())
	if err != nil {
		s.t.Fatalf("open the token key: %v", err)
	}
	s.TokenKeys = filepath.Join(config.GetDataDir(), token.JWKSFile)
	minter, err := token.NewMinter(log.Origin(), signer)
	if err != nil {
		s.t.Fatalf("make the minter: %v", err)
	}
	s.Agent, err = agent.New(s.t.Context(), agent.Options{
		Bundle: bundle, Ledger: log, State: state, Keys: keys, Tokens: minter, Approvers: s.approvers(),
		Pins:  func(string) *writv1.Pin { return &writv1.Pin{State: writv1.PinState_PIN_STATE_MATCHED} },
		Clock: time.Now, Random: rand.Reader,
		Limits: agent.Limits{JSON: wire.LimitsOf(config.GetLimits()).Request, ResponseBytes: ResponseBytes},
		Floor:  writv1.Durability_DURABILITY_PROCESS, WriteDurability: writv1.Durability_DURABILITY_PROCESS,
		Start: &writv1.StartRecord{Version: "envoytest", Origin: log.Origin()},
		Log:   slog.New(slog.NewTextHandler(s.t.Output(), nil)),
	})
	if err != nil {
		s.t.Fatalf("start the agent: %v", err)
	}
	s.t.Cleanup(func() {
		if err := s.Agent.Close(context.WithoutCancel(s.t.Context())); err != nil {
			s.t.Errorf("close the agent: %v", err)
		}
	})
}

func (s *Stack) startFace(config *writv1.AgentConfig) {
	s.t.Helper()
	face, err := envoy.New(envoy.Options{
		Agent: s.Agent, Identity: config.GetIdentity(), Limits: config.GetLimits(), Clock: time.Now,
		Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
	})
	if err != nil {
		s.t.Fatalf("make the face: %v", err)
	}
	s.Face = face
	s.Socket = strings.TrimPrefix(config.GetListeners().GetEnvoy(), "unix:")
	listener, err := net.Listen("unix", s.Socket)
	if err != nil {
		s.t.Fatalf("listen for Envoy: %v", err)
	}
	served := make(chan error, 1)
	go func() { served <- face.GRPC().Serve(listener) }()
	s.t.Cleanup(func() {
		over, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
		cancel()
		face.Stop(over)
		face.Tend(over)
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			s.t.Errorf("serve Envoy: %v", err)
		}
	})
}

func (s *Stack) startEnvoy(catalogue *writv1.Catalogue, config *writv1.AgentConfig, change func(string) string) {
	s.t.Helper()
	bootstrap, err := resources.Bootstrap(resources.Input{Config: config, Catalogue: catalogue, JWKS: s.Issuer.keys})
	if err != nil {
		s.t.Fatalf("make Envoy's configuration: %v", err)
	}
	text, err := resources.YAML(bootstrap)
	if err != nil {
		s.t.Fatalf("write Envoy's configuration: %v", err)
	}
	if change != nil {
		text = []byte(change(string(text)))
	}
	s.Proxy = testenv.Start(s.t, text, strings.TrimPrefix(config.GetEnvoy().GetAdmin(), "unix:"))
}

// Answer is what a caller got.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Do sends a request through Envoy. Any goroutine may call it: an exchange that
// fails is an error of the test and an empty answer.
func (s *Stack) Do(request *http.Request) *Answer {
	s.t.Helper()
	response, err := s.client.Do(request)
	if err != nil {
		s.t.Errorf("%s %s: %v", request.Method, request.URL, err)
		return &Answer{}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Errorf("%s %s: %v", request.Method, request.URL, err)
		return &Answer{}
	}
	return &Answer{Status: response.StatusCode, Header: response.Header, Body: string(body)}
}

// Request makes a request to an upstream by its domain: as ann, an agent of acme,
// or as the workload that has that role there.
func (s *Stack) Request(upstream, method, target, body string) *http.Request {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.scheme+"://"+s.Address+target, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Host = upstream + ".internal"
	if s.Workload == "" {
		request.Header.Set("authorization", "Bearer "+s.Issuer.Token("ann", "acme", "agent"))
	}
	if body != "" {
		request.Header.Set("content-type", "application/json")
	}
	return request
}

// Refund makes the request of a refund, in a body whose keys stand in another
// order than the canonical form has.
func (s *Stack) Refund(amount int64, payment string) *http.Request {
	s.t.Helper()
	body := fmt.Sprintf(`{ "note": "n", "amount": %d, "payment": %q }`, amount, payment)
	return s.Request("payments", http.MethodPost, "/v1/tenants/acme/refunds", body)
}

// Decision is a decision as it was recorded.
type Decision struct {
	// ID is the decision's, 32 hexadecimal digits.
	ID string
	// Record is the record's body.
	Record *writv1.DecisionRecord
	// Outcomes are the records of how the call ended.
	Outcomes []*writv1.OutcomeRecord
}

// Decisions waits until the ledger holds the decisions and, for each ALLOW, its
// outcome, and returns all of them in order.
func (s *Stack) Decisions(want int) []*Decision {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	reader, err := s.Ledger.Reader(0)
	if err != nil {
		s.t.Fatalf("read the ledger: %v", err)
	}
	found := &decisions{byID: make(map[string]*Decision)}
	for !found.complete(want) {
		bundle, err := reader.Next(ctx, 1000, 1<<20)
		if err != nil {
			s.t.Fatalf("%d decisions of %d, or outcomes missing: %v", len(found.all), want, err)
		}
		for _, bytes := range bundle.Records {
			if err := found.add(bytes); err != nil {
				s.t.Fatalf("read a record: %v", err)
			}
		}
	}
	return found.all
}
