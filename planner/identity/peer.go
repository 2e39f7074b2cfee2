// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// maxSpiffeID is the longest SPIFFE ID that the SPIFFE specification allows.
const maxSpiffeID = 2048

// UnixPeer is what the kernel says of the process at the other end of a unix
// socket, at the time it connected.
type UnixPeer struct {
	credentials.CommonAuthInfo
	// UID is the process's user as this process's user namespace sees it. A user
	// that the namespace does not map appears as the overflow uid (65534): that
	// number names nobody in particular and should be given to no workload.
	UID uint32
}

// AuthType names the kind of evidence.
func (UnixPeer) AuthType() string { return "unix-peer" }

// PeerCredentials returns the credentials of a server on a unix socket: plain
// text, with the peer's uid as a [UnixPeer]. On another kind of connection they
// prove nothing and let the connection through, so that a token may still name
// the caller; whoever listens there MUST keep to loopback.
func PeerCredentials() credentials.TransportCredentials { return peerCredentials{} }

type peerCredentials struct{}

func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	common := credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return conn, noPeer{common}, nil
	}
	uid, err := peerUID(unixConn)
	if err != nil {
		return nil, nil, fmt.Errorf("peer credential of the unix socket: %w", err)
	}
	return conn, UnixPeer{CommonAuthInfo: common, UID: uid}, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are a server's")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
}

func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

func (peerCredentials) OverrideServerName(string) error { return nil }

// noPeer is the evidence of a connection that proves nothing.
type noPeer struct{ credentials.CommonAuthInfo }

func (noPeer) AuthType() string { return "none" }

func peerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credential *unix.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		credential, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, sockErr); err != nil {
		return 0, err
	}
	return credential.Uid, nil
}

// CertificateID returns the SPIFFE ID of the peer's leaf certificate, which the
// handshake MUST have verified: the one URI among its subject alternative names
// (X.509-SVID, section 2). A certificate without any URI is somebody's that is no
// workload, and proves nothing.
func CertificateID(state tls.ConnectionState) (string, error) {
	if len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return "", errors.New("no verified client certificate")
	}
	leaf := state.PeerCertificates[0]
	if leaf.IsCA {
		return "", errors.New("the client certificate is an authority's")
	}
	if len(leaf.URIs) == 0 {
		return "", nil
	}
	if len(leaf.URIs) != 1 {
		return "", fmt.Errorf("the client certificate has %d URI names, not one", len(leaf.URIs))
	}
	id := leaf.URIs[0].String()
	if !validSpiffeID(id) {
		return "", errors.New("the client certificate's URI name is not a workload's SPIFFE ID")
	}
	return id, nil
}

// validSpiffeID reports whether id is a SPIFFE ID with a path (SPIFFE-ID, section
// 2). The characters allowed leave one spelling for one ID, so that IDs may be
// compared as strings.
func validSpiffeID(id string) bool {
	rest, found := strings.CutPrefix(id, "spiffe://")
	if !found || len(id) > maxSpiffeID {
		return false
	}
	domain, path, found := strings.Cut(rest, "/")
	if !found || domain == "" || len(domain) > 255 || strings.ContainsFunc(domain, notInDomain) {
		return false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, notInSegment) {
			return false
		}
	}
	return true
}

func notInSegment(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	return !letter && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

func notInDomain(r rune) bool { return r >= 'A' && r <= 'Z' || notInSegment(r) }
