// SPDX-License-Identifier: Apache-2.0

// Package identity finds out who calls the planners' face: it turns what a
// connection and a request prove into a [writv1.Principal], or refuses.
//
// Three things prove something. The client certificate of a mutual TLS
// connection names a workload by its SPIFFE ID (X.509-SVID). The peer credential
// of a unix socket names a uid, which the configuration ties to a workload. A
// JSON Web Token (RFC 7519) that a configured issuer signed names a user, roles
// and a tenant. What the caller says of itself in any other way proves nothing.
//
//	verifier, err := identity.New(identity.Options{Config: config.GetIdentity(), Clock: time.Now})
//	...
//	principal, refusal := verifier.Principal(peer.AuthInfo, md["authorization"])
//
// The package promises that a token which is presented and does not verify
// refuses the call, even where the connection alone would have named a workload;
// that a workload and a token of different tenants refuse it; and that every
// refusal is the same few words, whatever was wrong with the token in detail (the
// cause is for the log alone). Roles are those of the workload and of the token
// together.
//
// [MutualTLS] and [PeerCredentials] are the credentials under which a server's
// connections prove something.
//
// The package does not fetch keys over the network, does not ask an issuer
// whether a token or a certificate was revoked, and decides nothing.
package identity
