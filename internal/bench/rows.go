// SPDX-License-Identifier: Apache-2.0

package main

import (
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// server is what stands behind Envoy's filter.
type server int

const (
	noServer server = iota
	noopServer
	writServer
)

// row is one thing that is measured.
type row struct {
	name, title string
	server      server
	enforcement writv1.Enforcement
	// token is the kind of decision token that the route asks for.
	token writv1.DecisionTokenKind
	// against is the row that this one is held against, in the same round.
	against string
}

// rows are all that is measured, in the order of a round: what is held against each
// other stands together.
var rows = []row{
	{
		name: "none", title: "no filter", against: "noop-ext-authz",
		enforcement: writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ,
	},
	{
		name: "noop-ext-authz", title: "no-op ext_authz", server: noopServer,
		enforcement: writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ,
	},
	{
		name: "writ-ext-authz", title: "writ ext_authz", server: writServer, against: "noop-ext-authz",
		enforcement: writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ,
	},
	{
		name: "writ-ext-authz-jws", title: "writ ext_authz with a `jws` token", server: writServer, against: "noop-ext-authz",
		enforcement: writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ, token: writv1.DecisionTokenKind_DECISION_TOKEN_KIND_JWS,
	},
	{
		name: "noop-ext-proc", title: "no-op ext_proc", server: noopServer,
		enforcement: writv1.Enforcement_ENFORCEMENT_EXT_PROC,
	},
	{
		name: "writ-ext-proc", title: "writ ext_proc", server: writServer, against: "noop-ext-proc",
		enforcement: writv1.Enforcement_ENFORCEMENT_EXT_PROC,
	},
}
