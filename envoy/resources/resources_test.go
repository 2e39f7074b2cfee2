// SPDX-License-Identifier: Apache-2.0

package resources_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/internal/testenv"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

var update = flag.Bool("update", false, "write the golden files again")

// jwks is a key set with one public key, whose private part nobody has.
const jwks = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

func input() resources.Input {
	return resources.Input{
		Config: &writv1.AgentConfig{
			DataDir: "data", BundleDir: "bundle",
			Listeners: &writv1.AgentListeners{Envoy: "unix:/run/writ/agent.sock"},
			Identity: &writv1.IdentityConfig{Jwt: &writv1.JwtConfig{
				Issuer: "https://issuer.example", Audiences: []string{"desk"}, JwksFile: "jwks.json",
			}},
			Envoy: &writv1.EnvoyConfig{
				Listener: "127.0.0.1:15400", AgentListener: "unix:/run/writ/egress.sock", Admin: "unix:/run/writ/admin.sock",
			},
		},
		Catalogue: &writv1.Catalogue{Upstreams: []*writv1.Upstream{
			upstream("payments", writv1.Protocol_PROTOCOL_HTTP_JSON, writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ),
			upstream("desk", writv1.Protocol_PROTOCOL_HTTP_JSON, writv1.Enforcement_ENFORCEMENT_BOTH),
			upstream("files", writv1.Protocol_PROTOCOL_MCP, writv1.Enforcement_ENFORCEMENT_EXT_PROC),
		}},
		JWKS: []byte(jwks),
	}
}

func upstream(name string, protocol writv1.Protocol, enforcement writv1.Enforcement) *writv1.Upstream {
	return &writv1.Upstream{
		Name: name, Address: "127.0.0.1:9000", Protocol: protocol,
		Domains: []string{name + ".internal"}, Enforcement: enforcement,
	}
}

func text(t *testing.T, in resources.Input) []byte {
	t.Helper()
	bootstrap, err := resources.Bootstrap(in)
	if err != nil {
		t.Fatalf("Bootstrap: %v", err)
	}
	out, err := resources.YAML(bootstrap)
	if err != nil {
		t.Fatalf("YAML: %v", err)
	}
	return out
}

func TestTheConfigurationIsAsReviewed(t *testing.T) {
	t.Parallel()
	got := text(t, input())
	golden := filepath.Join("testdata", "bootstrap.yaml")
	if *update {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the configuration changed (-want +got); review it and run with -update:\n%s", diff)
	}
}

func TestEnvoyAcceptsTheConfiguration(t *testing.T) {
	t.Parallel()
	withTLS := input()
	withTLS.Config = proto.CloneOf(withTLS.Config)
	dir := certificates(t)
	withTLS.Config.Envoy.Tls = &writv1.ServerTls{
		CertificateFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), ClientCaFile: filepath.Join(dir, "cert.pem"),
	}
	plain := input()
	plain.Config.Identity, plain.JWKS = nil, nil
	plain.Config.Envoy.AgentListener, plain.Config.Envoy.Admin = "", ""
	plain.Config.Listeners.Envoy = "127.0.0.1:15401"
	plain.Catalogue.Upstreams[0].Address = "payments.example:443"
	cases := map[string]resources.Input{
		"with tokens":                          input(),
		"with mutual TLS":                      withTLS,
		"without identity, by TCP, by DNS":     plain,
		"with an empty catalogue: no upstream": {Config: plain.Config, Catalogue: &writv1.Catalogue{}},
	}
	for name, in := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := testenv.Validate(t, text(t, in)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNothingFailsOpen(t *testing.T) {
	t.Parallel()
	for line := range strings.Lines(string(text(t, input()))) {
		for _, bad := range []string{"failure_mode_allow: true", "allow_mode_override: true"} {
			if strings.Contains(line, bad) {
				t.Errorf("the configuration says %q", strings.TrimSpace(line))
			}
		}
	}
}

func TestWhatCannotBeMadeIsAnError(t *testing.T) {
	t.Parallel()
	noEnvoy := input()
	noEnvoy.Config.Envoy = nil
	if _, err := resources.Bootstrap(noEnvoy); !errors.Is(err, resources.ErrNoEnvoy) {
		t.Errorf("without an envoy section: %v", err)
	}
	noKeys := input()
	noKeys.JWKS = nil
	badUpstream := input()
	badUpstream.Catalogue.Upstreams[0].Address = "nowhere"
	badListener := input()
	badListener.Config.Envoy.Listener = "127.0.0.1:http"
	badText := input()
	badText.Catalogue.Upstreams[0].Domains = []string{"\xff"}
	taken := input()
	taken.Catalogue.Upstreams[0].Name = "writ_agent"
	shared := input()
	shared.Catalogue.Upstreams[0].Domains = []string{"Desk.internal"}
	everywhere := input()
	everywhere.Catalogue.Upstreams[0].Domains = []string{"*"}
	for name, in := range map[string]resources.Input{
		"a name that is the agent's": taken, "a domain of two upstreams": shared, "a domain that is all": everywhere,
		"no key set": noKeys, "an upstream without a port": badUpstream,
		"a port that is a name": badListener, "text that is not UTF-8": badText,
	} {
		if _, err := resources.Bootstrap(in); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
