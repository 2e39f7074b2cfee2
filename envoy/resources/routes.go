// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"net"
	"net/http"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	procv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// governedRoutes has a host for every upstream, and none for anything else.
func governedRoutes(input Input) *routev3.RouteConfiguration {
	var hosts []*routev3.VirtualHost
	for _, upstream := range input.Catalogue.GetUpstreams() {
		hosts = append(hosts, &routev3.VirtualHost{
			Name:    upstream.GetName(),
			Domains: domainsOf(upstream.GetDomains()),
			Routes:  governedRoutesTo(upstream, input.Config.GetLimits()),
			// The planner's claims are for the agent; a body that is validated
			// must not be compressed.
			RequestHeadersToRemove: []string{"x-writ-envelope", "x-writ-session", "accept-encoding"},
		})
	}
	return routeTable("writ_governed", append(hosts, nowhere(ungoverned())))
}

// domainsOf returns each domain with and without a port.
func domainsOf(domains []string) []string {
	var all []string
	for _, domain := range domains {
		all = append(all, domain)
		if _, _, err := net.SplitHostPort(domain); err != nil {
			all = append(all, domain+":*")
		}
	}
	return all
}

// governedRoutesTo returns the routes to one upstream. An MCP server's own stream
// (GET) has no end, so that its response is not buffered; it has no tool's answer.
func governedRoutesTo(upstream *writv1.Upstream, limits *writv1.AgentLimits) []*routev3.Route {
	if upstream.GetProtocol() != writv1.Protocol_PROTOCOL_MCP {
		return []*routev3.Route{governedRoute(upstream, limits, bufferedMode())}
	}
	stream := governedRoute(upstream, limits, streamedMode())
	stream.Match.Headers = []*routev3.HeaderMatcher{{
		Name: ":method",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: http.MethodGet},
		}},
	}}
	return []*routev3.Route{stream, governedRoute(upstream, limits, bufferedMode())}
}

func governedRoute(upstream *writv1.Upstream, limits *writv1.AgentLimits, mode *procv3.ProcessingMode) *routev3.Route {
	return &routev3.Route{
		Match: everything(),
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: upstream.GetName()},
			Timeout:          timeoutOf(upstream),
			RetryPolicy:      retriesOf(upstream),
		}},
		TypedPerFilterConfig: map[string]*anypb.Any{
			authzName: packed(authzRoute(upstream, limits)),
			procName:  packed(procRoute(upstream, mode)),
		},
	}
}

func authzRoute(upstream *writv1.Upstream, limits *writv1.AgentLimits) *authzv3.ExtAuthzPerRoute {
	if upstream.GetEnforcement() == writv1.Enforcement_ENFORCEMENT_EXT_PROC {
		return &authzv3.ExtAuthzPerRoute{Override: &authzv3.ExtAuthzPerRoute_Disabled{Disabled: true}}
	}
	return &authzv3.ExtAuthzPerRoute{Override: &authzv3.ExtAuthzPerRoute_CheckSettings{
		CheckSettings: &authzv3.CheckSettings{ContextExtensions: map[string]string{
			UpstreamKey: upstream.GetName(),
			BodyKey:     strconv.Itoa(int(bodyBytes(limits))),
		}},
	}}
}

func procRoute(upstream *writv1.Upstream, mode *procv3.ProcessingMode) *procv3.ExtProcPerRoute {
	if upstream.GetEnforcement() == writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ {
		return &procv3.ExtProcPerRoute{Override: &procv3.ExtProcPerRoute_Disabled{Disabled: true}}
	}
	return &procv3.ExtProcPerRoute{Override: &procv3.ExtProcPerRoute_Overrides{Overrides: &procv3.ExtProcOverrides{
		ProcessingMode:      mode,
		GrpcInitialMetadata: []*corev3.HeaderValue{{Key: UpstreamKey, Value: upstream.GetName()}},
	}}}
}

// ungoverned switches both filters off, where nothing is reached.
func ungoverned() map[string]*anypb.Any {
	return map[string]*anypb.Any{
		authzName: packed(&authzv3.ExtAuthzPerRoute{Override: &authzv3.ExtAuthzPerRoute_Disabled{Disabled: true}}),
		procName:  packed(&procv3.ExtProcPerRoute{Override: &procv3.ExtProcPerRoute_Disabled{Disabled: true}}),
	}
}

// nowhereName is the host that answers what is not in the catalogue.
const nowhereName = "writ_nowhere"

// nowhere answers what is not in the catalogue.
func nowhere(perFilter map[string]*anypb.Any) *routev3.VirtualHost {
	return &routev3.VirtualHost{
		Name:    nowhereName,
		Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Match: everything(),
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
				Status: http.StatusNotFound,
				Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{
					InlineString: "there is no such upstream in the catalogue\n",
				}},
			}},
			TypedPerFilterConfig: perFilter,
		}},
	}
}

// agentRoutes has a host for every upstream under its own name.
func agentRoutes(catalogue *writv1.Catalogue) (*routev3.RouteConfiguration, error) {
	var hosts []*routev3.VirtualHost
	for _, upstream := range catalogue.GetUpstreams() {
		if _, _, err := splitAddress(upstream.GetAddress()); err != nil {
			return nil, err
		}
		hosts = append(hosts, &routev3.VirtualHost{
			Name:    upstream.GetName(),
			Domains: []string{upstream.GetName(), upstream.GetName() + ":*"},
			Routes: []*routev3.Route{{
				Match: everything(),
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier:     &routev3.RouteAction_Cluster{Cluster: upstream.GetName()},
					HostRewriteSpecifier: &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: upstream.GetAddress()},
					Timeout:              timeoutOf(upstream),
					RetryPolicy:          retriesOf(upstream),
				}},
			}},
		})
	}
	return routeTable("writ_agent_egress", append(hosts, nowhere(nil))), nil
}

func everything() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

// timeoutOf is zero, which is none, for MCP: its responses may stream.
func timeoutOf(upstream *writv1.Upstream) *durationpb.Duration {
	if upstream.GetProtocol() == writv1.Protocol_PROTOCOL_MCP {
		return durationpb.New(0)
	}
	return orDefault(upstream.GetTimeout(), defaultUpstreamTimeout)
}

// retriesOf repeats only what surely did not run, and on MCP nothing: a retry by
// the router passes no filter, so that no decision speaks of it.
func retriesOf(upstream *writv1.Upstream) *routev3.RetryPolicy {
	if upstream.GetProtocol() == writv1.Protocol_PROTOCOL_MCP {
		return nil
	}
	return &routev3.RetryPolicy{
		RetryOn:    "connect-failure,refused-stream",
		NumRetries: wrapperspb.UInt32(1),
	}
}
