// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"net"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	agentConnectTimeout    = time.Second
	upstreamConnectTimeout = 5 * time.Second
	// agentCalls bounds the calls that wait for the agent at a time; more get the
	// status of an unreachable agent. Envoy's default of 1,024 is soon reached by
	// ext_proc, whose streams last as long as their requests.
	agentCalls = 65536
	// upstreamCalls bounds the calls in hand at one upstream.
	upstreamCalls = 4096
	// ejectAfter failures to reach an upstream in a row, a host is left alone.
	ejectAfter = 5

	httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// agentCluster is the agent, over HTTP/2.
func agentCluster(address string) (*clusterv3.Cluster, error) {
	parsed, err := addressOf(address)
	if err != nil {
		return nil, err
	}
	options := &httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
				},
			},
		},
	}
	return &clusterv3.Cluster{
		Name:                          AgentCluster,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: discovery(address)},
		ConnectTimeout:                durationpb.New(agentConnectTimeout),
		LoadAssignment:                assignment(AgentCluster, parsed),
		CircuitBreakers:               breakers(agentCalls),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpOptions: packed(options)},
	}, nil
}

// upstreamCluster is one upstream of the catalogue.
func upstreamCluster(upstream *writv1.Upstream) (*clusterv3.Cluster, error) {
	parsed, err := addressOf(upstream.GetAddress())
	if err != nil {
		return nil, err
	}
	return &clusterv3.Cluster{
		Name:                 upstream.GetName(),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: discovery(upstream.GetAddress())},
		ConnectTimeout:       durationpb.New(upstreamConnectTimeout),
		LoadAssignment:       assignment(upstream.GetName(), parsed),
		CircuitBreakers:      breakers(upstreamCalls),
		OutlierDetection: &clusterv3.OutlierDetection{
			ConsecutiveGatewayFailure:          wrapperspb.UInt32(ejectAfter),
			EnforcingConsecutiveGatewayFailure: wrapperspb.UInt32(100),
			EnforcingConsecutive_5Xx:           wrapperspb.UInt32(0),
			EnforcingSuccessRate:               wrapperspb.UInt32(0),
		},
	}, nil
}

// discovery resolves a host's name; an address or a socket needs no resolving.
func discovery(address string) clusterv3.Cluster_DiscoveryType {
	host, _, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) != nil || strings.HasPrefix(address, "unix:") {
		return clusterv3.Cluster_STATIC
	}
	return clusterv3.Cluster_STRICT_DNS
}

func assignment(name string, address *corev3.Address) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}},
		}}}},
	}
}

func breakers(calls uint32) *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     wrapperspb.UInt32(calls),
		MaxPendingRequests: wrapperspb.UInt32(calls),
		MaxRequests:        wrapperspb.UInt32(calls),
	}}}
}
