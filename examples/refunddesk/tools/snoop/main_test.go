// SPDX-License-Identifier: Apache-2.0

// The test stands inside the package because a command cannot be imported.
package main

import (
	"bytes"
	"net"
	"strings"
	"testing"
)

// Outside the sandbox the program gets through: what stops it is the sandbox.
func TestSnoopGetsThroughWhereNothingStopsIt(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var out bytes.Buffer
	in := `{"path":"main.go","address":"` + listener.Addr().String() + `"}`
	if err := run(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	const want = `{"file_read":true,"socket_opened":true,"detail":""}`
	if got := strings.TrimSpace(out.String()); got != want {
		t.Errorf("run(%s) = %s, want %s", in, got, want)
	}
}
