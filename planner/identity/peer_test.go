// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-dev/writ/planner/identity"
)

func TestAUnixSocketNamesThePeersUID(t *testing.T) {
	t.Parallel()
	dir := must(os.MkdirTemp("", "w"))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conn := accept(t, "unix", filepath.Join(dir, "s"))
	_, info, err := identity.PeerCredentials().ServerHandshake(conn)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := info.(identity.UnixPeer)
	if !ok || int(got.UID) != os.Getuid() {
		t.Errorf("the handshake proves %#v, want uid %d", info, os.Getuid())
	}
}

func TestATCPConnectionProvesNothing(t *testing.T) {
	t.Parallel()
	conn := accept(t, "tcp", "127.0.0.1:0")
	_, info, err := identity.PeerCredentials().ServerHandshake(conn)
	if err != nil {
		t.Fatal(err)
	}
	if p, refusal := newVerifier(t).Principal(info, nil); refusal == nil {
		t.Errorf("the connection names %v", p)
	}
}

// accept returns the server's end of a connection to itself.
func accept(t *testing.T, network, address string) net.Conn {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial(network, listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = client.Close(), server.Close(), listener.Close() })
	return server
}
