// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// requestTimeout bounds how long a request may take to come in.
	requestTimeout = 60 * time.Second
	// headersTimeout bounds how long its headers may.
	headersTimeout = 10 * time.Second
	// ownSocketMode lets only the agent's own user in.
	ownSocketMode = 0o600

	managerName = "envoy.filters.network.http_connection_manager"
)

// governedListener is where calls come in.
func governedListener(input Input) (*listenerv3.Listener, error) {
	config := input.Config.GetEnvoy()
	address, err := addressOf(config.GetListener())
	if err != nil {
		return nil, err
	}
	manager := plainManager("writ_governed")
	manager.UseRemoteAddress = wrapperspb.Bool(true)
	manager.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{stripOwnHeaders()}
	manager.AccessLog = accessLog()
	manager.HttpFilters = governedFilters(input)
	manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: governedRoutes(input)}
	chain := chainOf(manager)
	if tls := config.GetTls(); tls != nil {
		chain.TransportSocket = mutualTLS(tls)
	}
	return &listenerv3.Listener{
		Name:                          "writ_governed",
		Address:                       address,
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferBytes(input.Config.GetLimits())),
		FilterChains:                  []*listenerv3.FilterChain{chain},
	}, nil
}

// agentListener is how the agent's own requests leave: past the filters, to the
// catalogue alone, by a socket that only its user may open.
func agentListener(input Input) (*listenerv3.Listener, error) {
	path := strings.TrimPrefix(input.Config.GetEnvoy().GetAgentListener(), "unix:")
	manager := plainManager("writ_agent_egress")
	manager.HttpFilters = []*hcmv3.HttpFilter{routerFilter()}
	routes, err := agentRoutes(input.Catalogue)
	if err != nil {
		return nil, err
	}
	manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes}
	return &listenerv3.Listener{
		Name:                          "writ_agent_egress",
		Address:                       pipe(path, ownSocketMode),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferBytes(input.Config.GetLimits())),
		FilterChains:                  []*listenerv3.FilterChain{chainOf(manager)},
	}, nil
}

// plainManager reads requests in their plain form: what could be read in two
// ways is normalised or rejected before any filter or upstream sees it.
func plainManager(prefix string) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix:                   prefix,
		CodecType:                    hcmv3.HttpConnectionManager_AUTO,
		GenerateRequestId:            wrapperspb.Bool(true),
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		RequestTimeout:               durationpb.New(requestTimeout),
		RequestHeadersTimeout:        durationpb.New(headersTimeout),
		InternalAddressConfig:        &hcmv3.HttpConnectionManager_InternalAddressConfig{},
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
		},
	}
}

func chainOf(manager *hcmv3.HttpConnectionManager) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{Filters: []*listenerv3.Filter{{
		Name:       managerName,
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(manager)},
	}}}
}

// mutualTLS demands a certificate of every client.
func mutualTLS(config *writv1.ServerTls) *corev3.TransportSocket {
	context := &tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2},
			AlpnProtocols: []string{"h2", "http/1.1"},
			TlsCertificates: []*tlsv3.TlsCertificate{{
				CertificateChain: file(config.GetCertificateFile()),
				PrivateKey:       file(config.GetKeyFile()),
			}},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{
				ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: file(config.GetClientCaFile())},
			},
		},
	}
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(context)},
	}
}

func file(name string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: name}}
}

// routeTable returns a table whose last host answers what no other takes.
func routeTable(name string, hosts []*routev3.VirtualHost) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: hosts}
}
