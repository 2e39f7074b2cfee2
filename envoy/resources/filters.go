// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	procv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

const (
	authzName  = "envoy.filters.http.ext_authz"
	procName   = "envoy.filters.http.ext_proc"
	jwtName    = "envoy.filters.http.jwt_authn"
	routerName = "envoy.filters.http.router"

	// accessLogDelay is how long Envoy gathers entries of its access log, so that
	// one message tells of many calls.
	accessLogDelay = 100 * time.Millisecond

	// jwtProvider is the one provider of jwt_authn.
	jwtProvider = "writ"
)

// ContentType is the answer's header that entries of the access log carry.
const ContentType = "content-type"

// stripped are headers that nobody outside may set: those that the agent adds,
// and those by which a caller could have Envoy retry, hedge or wait.
var stripped = []string{
	tools.DecisionHeader, "x-writ-decision-token", UpstreamKey,
	"x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-max-retries",
	"x-envoy-retriable-status-codes", "x-envoy-retriable-header-names",
	"x-envoy-hedge-on-per-try-timeout", "x-envoy-upstream-rq-timeout-ms",
	"x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-upstream-alt-stat-name",
	"x-envoy-auth-partial-body", "x-envoy-original-path", "x-envoy-force-trace",
}

// governedFilters are in their one order: who it is, then may it, then what goes on.
func governedFilters(input Input) []*hcmv3.HttpFilter {
	var filters []*hcmv3.HttpFilter
	if jwt := input.Config.GetIdentity().GetJwt(); jwt != nil {
		filters = append(filters, httpFilter(jwtName, jwtFilter(jwt, input.JWKS)))
	}
	return append(filters,
		httpFilter(authzName, authzFilter(input.Config)),
		httpFilter(procName, procFilter(input.Config)),
		routerFilter())
}

func httpFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(config)}}
}

func routerFilter() *hcmv3.HttpFilter {
	return httpFilter(routerName, &routerv3.Router{SuppressEnvoyHeaders: true})
}

// jwtFilter verifies tokens and lets requests without a good one go on to the
// agent, which refuses them with a record.
func jwtFilter(config *writv1.JwtConfig, jwks []byte) *jwtv3.JwtAuthentication {
	return &jwtv3.JwtAuthentication{
		Providers: map[string]*jwtv3.JwtProvider{jwtProvider: {
			Issuer:    config.GetIssuer(),
			Audiences: config.GetAudiences(),
			JwksSourceSpecifier: &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: string(jwks)},
			}},
			Forward:                true,
			FromHeaders:            []*jwtv3.JwtHeader{{Name: "authorization", ValuePrefix: "Bearer "}},
			PayloadInMetadata:      JWTClaims,
			FailedStatusInMetadata: JWTFailure,
			RequireExpiration:      true,
		}},
		Rules: []*jwtv3.RequirementRule{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			RequirementType: &jwtv3.RequirementRule_Requires{Requires: &jwtv3.JwtRequirement{
				RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: &jwtv3.JwtRequirementOrList{
					Requirements: []*jwtv3.JwtRequirement{
						{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: jwtProvider}},
						{RequiresType: &jwtv3.JwtRequirement_AllowMissingOrFailed{AllowMissingOrFailed: &emptypb.Empty{}}},
					},
				}},
			}},
		}},
	}
}

// authzFilter sends the whole request, as raw as it came, and fails closed. Of a
// body that is larger than what Envoy takes it sends the beginning, so that the
// refusal is the agent's, with a record: what fills Envoy's buffer (BodyKey) may go
// on beyond it, and is refused whatever the agent's own limit is.
func authzFilter(config *writv1.AgentConfig) *authzv3.ExtAuthz {
	return &authzv3.ExtAuthz{
		TransportApiVersion: corev3.ApiVersion_V3,
		Services: &authzv3.ExtAuthz_GrpcService{
			GrpcService: agentService(orDefault(config.GetEnvoy().GetAgentTimeout(), defaultAgentTimeout)),
		},
		StatusOnError:             unavailable(),
		ValidateMutations:         true,
		EncodeRawHeaders:          true,
		MetadataContextNamespaces: []string{JWTNamespace},
		WithRequestBody: &authzv3.BufferSettings{
			MaxRequestBytes:     bodyBytes(config.GetLimits()),
			AllowPartialMessage: true,
			PackAsBytes:         true,
		},
	}
}

// procFilter sees both directions whole, and fails closed.
func procFilter(config *writv1.AgentConfig) *procv3.ExternalProcessor {
	timeout := orDefault(config.GetEnvoy().GetAgentTimeout(), defaultAgentTimeout)
	return &procv3.ExternalProcessor{
		GrpcService:        agentService(nil),
		StatusOnError:      unavailable(),
		ProcessingMode:     bufferedMode(),
		RequestAttributes:  []string{PeerAttribute},
		ResponseAttributes: []string{DetailsAttribute},
		MessageTimeout:     timeout,
		RouteCacheAction:   procv3.ExternalProcessor_RETAIN,
		MutationRules: &mutationv3.HeaderMutationRules{
			DisallowIsError: wrapperspb.Bool(true),
		},
		MetadataOptions: &procv3.MetadataOptions{
			ForwardingNamespaces: &procv3.MetadataOptions_MetadataNamespaces{
				Untyped: []string{JWTNamespace, AuthzNamespace},
			},
			ReceivingNamespaces: &procv3.MetadataOptions_MetadataNamespaces{
				Untyped: []string{ProcNamespace},
			},
		},
	}
}

// bufferedMode has every body whole before it goes on.
func bufferedMode() *procv3.ProcessingMode {
	return &procv3.ProcessingMode{
		RequestHeaderMode:   procv3.ProcessingMode_SEND,
		RequestBodyMode:     procv3.ProcessingMode_BUFFERED,
		RequestTrailerMode:  procv3.ProcessingMode_SKIP,
		ResponseHeaderMode:  procv3.ProcessingMode_SEND,
		ResponseBodyMode:    procv3.ProcessingMode_BUFFERED,
		ResponseTrailerMode: procv3.ProcessingMode_SKIP,
	}
}

// streamedMode leaves the response of a request without end alone.
func streamedMode() *procv3.ProcessingMode {
	mode := bufferedMode()
	mode.ResponseHeaderMode = procv3.ProcessingMode_SKIP
	mode.ResponseBodyMode = procv3.ProcessingMode_NONE
	return mode
}

func agentService(timeout *durationpb.Duration) *corev3.GrpcService {
	return &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: AgentCluster},
		},
		Timeout: timeout,
	}
}

func unavailable() *typev3.HttpStatus {
	return &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable}
}

// stripOwnHeaders removes headers that only the agent may set, before any filter
// or route sees them.
func stripOwnHeaders() *corev3.TypedExtensionConfig {
	early := &earlyv3.HeaderMutation{}
	for _, name := range stripped {
		early.Mutations = append(early.Mutations, &mutationv3.HeaderMutation{
			Action: &mutationv3.HeaderMutation_Remove{Remove: name},
		})
	}
	return &corev3.TypedExtensionConfig{
		Name:        "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: packed(early),
	}
}

// accessLog tells the agent how the calls ended that ext_authz let through.
func accessLog() []*accesslogv3.AccessLog {
	config := &grpclogv3.HttpGrpcAccessLogConfig{CommonConfig: &grpclogv3.CommonGrpcAccessLogConfig{
		LogName:             "writ",
		TransportApiVersion: corev3.ApiVersion_V3,
		GrpcService:         agentService(nil),
		BufferFlushInterval: durationpb.New(accessLogDelay),
	}, AdditionalResponseHeadersToLog: []string{ContentType}}
	return []*accesslogv3.AccessLog{{
		Name:       "envoy.access_loggers.http_grpc",
		Filter:     letThrough(),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed(config)},
	}}
}

// letThrough takes the calls that ext_authz allowed.
func letThrough() *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{
		MetadataFilter: &accesslogv3.MetadataFilter{
			Matcher: &matcherv3.MetadataMatcher{
				Filter: AuthzNamespace,
				Path:   []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: "verdict"}}},
				Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{
					StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "ALLOW"}},
				}},
			},
			MatchIfKeyNotFound: wrapperspb.Bool(false),
		},
	}}
}
