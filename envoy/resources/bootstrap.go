// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

// Names that the agent's filters look for, or that stand in Envoy's statistics.
const (
	// AgentCluster is the cluster that is the agent.
	AgentCluster = "writ_agent"
	// UpstreamKey is the key under which a route tells the filters its upstream:
	// of ext_authz's context extensions, and of ext_proc's gRPC metadata.
	UpstreamKey = "x-writ-upstream"
	// BodyKey is the key under which a route tells ext_authz how many bytes of a body
	// Envoy sends at most: of the context extensions.
	BodyKey = "x-writ-body-bytes"
	// JWTNamespace is the metadata namespace of what jwt_authn verified.
	JWTNamespace = "envoy.filters.http.jwt_authn"
	// JWTClaims is the key of a verified token's claims in that namespace.
	JWTClaims = "writ_claims"
	// JWTFailure is the key of why a token was not verified.
	JWTFailure = "writ_failure"
	// AuthzNamespace is the metadata namespace of what ext_authz leaves behind.
	AuthzNamespace = "envoy.filters.http.ext_authz"
	// ProcNamespace is the metadata namespace of what ext_proc leaves behind.
	ProcNamespace = "writ"
	// DetailsAttribute is the ext_proc attribute that says where a response comes from.
	DetailsAttribute = "response.code_details"
	// PeerAttribute is the ext_proc attribute with the peer's URI.
	PeerAttribute = "connection.uri_san_peer_certificate"
)

const (
	defaultAgentTimeout    = 5 * time.Second
	defaultUpstreamTimeout = 15 * time.Second
	// bodyMargin is what Envoy takes beyond the agent's limits.
	bodyMargin = 64 << 10
)

// ErrNoEnvoy is returned when the configuration describes no Envoy.
var ErrNoEnvoy = errors.New("the configuration has no \"envoy\" section")

// Input is what an Envoy's configuration is made from.
type Input struct {
	// Config is the agent's.
	Config *writv1.AgentConfig
	// Catalogue is the bundle's.
	Catalogue *writv1.Catalogue
	// JWKS is the content of the JSON Web Key Set that identity.jwt names; needed
	// if it names one.
	JWKS []byte
}

// Bootstrap returns the whole static configuration.
func Bootstrap(input Input) (*bootstrapv3.Bootstrap, error) {
	if err := check(input); err != nil {
		return nil, err
	}
	listeners, err := makeListeners(input)
	if err != nil {
		return nil, err
	}
	clusters, err := makeClusters(input)
	if err != nil {
		return nil, err
	}
	admin, err := makeAdmin(input.Config.GetEnvoy().GetAdmin())
	if err != nil {
		return nil, err
	}
	return &bootstrapv3.Bootstrap{
		Node:  &corev3.Node{Id: "writ", Cluster: "writ"},
		Admin: admin,
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Listeners: listeners, Clusters: clusters,
		},
	}, nil
}

// check refuses what no configuration can be made from.
func check(input Input) error {
	if input.Config.GetEnvoy() == nil {
		return ErrNoEnvoy
	}
	if input.Config.GetIdentity().GetJwt() != nil && len(input.JWKS) == 0 {
		return errors.New("identity.jwt needs the key set that it names")
	}
	if !utf8.Valid(input.JWKS) {
		return errors.New("the key set is not UTF-8")
	}
	for _, message := range []proto.Message{input.Config, input.Catalogue} {
		if _, err := proto.Marshal(message); err != nil {
			return fmt.Errorf("read the configuration: %w", err)
		}
	}
	return checkNames(input.Catalogue)
}

// checkNames refuses what two upstreams, or an upstream and the agent, would share.
func checkNames(catalogue *writv1.Catalogue) error {
	names := map[string]bool{AgentCluster: true, nowhereName: true}
	// All domains are the host's that answers what is not in the catalogue.
	domains := map[string]string{"*": nowhereName}
	for _, upstream := range catalogue.GetUpstreams() {
		if names[upstream.GetName()] {
			return fmt.Errorf("upstream %s: the name is taken", upstream.GetName())
		}
		names[upstream.GetName()] = true
		for _, domain := range domainsOf(upstream.GetDomains()) {
			if other, taken := domains[strings.ToLower(domain)]; taken {
				return fmt.Errorf("upstream %s: the domain %s is %s's", upstream.GetName(), domain, other)
			}
			domains[strings.ToLower(domain)] = upstream.GetName()
		}
	}
	return nil
}

func makeListeners(input Input) ([]*listenerv3.Listener, error) {
	governed, err := governedListener(input)
	if err != nil {
		return nil, fmt.Errorf("listener of governed calls: %w", err)
	}
	listeners := []*listenerv3.Listener{governed}
	if input.Config.GetEnvoy().GetAgentListener() == "" {
		return listeners, nil
	}
	own, err := agentListener(input)
	if err != nil {
		return nil, fmt.Errorf("listener of the agent: %w", err)
	}
	return append(listeners, own), nil
}

func makeClusters(input Input) ([]*clusterv3.Cluster, error) {
	agent, err := agentCluster(input.Config.GetListeners().GetEnvoy())
	if err != nil {
		return nil, fmt.Errorf("cluster of the agent: %w", err)
	}
	clusters := []*clusterv3.Cluster{agent}
	for _, upstream := range input.Catalogue.GetUpstreams() {
		cluster, err := upstreamCluster(upstream)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", upstream.GetName(), err)
		}
		clusters = append(clusters, cluster)
	}
	return clusters, nil
}

func makeAdmin(address string) (*bootstrapv3.Admin, error) {
	if address == "" {
		return nil, nil
	}
	parsed, err := addressOf(address)
	if err != nil {
		return nil, fmt.Errorf("envoy.admin: %w", err)
	}
	return &bootstrapv3.Admin{Address: parsed}, nil
}

// packed returns message as an Any. What could keep it from being packed, text
// that is not UTF-8, check has refused; if it happened, Envoy would refuse the
// empty Any.
func packed(message proto.Message) *anypb.Any {
	value, err := anypb.New(message)
	if err != nil {
		return &anypb.Any{}
	}
	return value
}

// orDefault returns what is configured, or else fallback.
func orDefault(configured *durationpb.Duration, fallback time.Duration) *durationpb.Duration {
	if configured != nil {
		return configured
	}
	return durationpb.New(fallback)
}

// bodyBytes returns the bytes of a request body that Envoy takes: more than the
// agent does, so that a body over the agent's limit is refused with a record.
func bodyBytes(limits *writv1.AgentLimits) uint32 {
	return uint32(wire.LimitsOf(limits).Request.Bytes) + bodyMargin
}

// bufferBytes returns the bytes that Envoy buffers of one request or response.
func bufferBytes(limits *writv1.AgentLimits) uint32 {
	return max(bodyBytes(limits), uint32(wire.LimitsOf(limits).Response.Bytes)) + bodyMargin
}
