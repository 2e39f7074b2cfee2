// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// What is sent: the arguments of a call, and what the planner claims about it.
var (
	//go:embed testdata/arguments.json
	arguments string
	//go:embed testdata/envelope.json
	envelope string
)

// Who calls, by the headers that the configuration trusts.
const (
	user, role, tenant                   = "ann", "desk", "north"
	userHeader, roleHeader, tenantHeader = "x-bench-user", "x-bench-roles", "x-bench-tenant"
	domain                               = "shop.internal"
)

// sent numbers the calls of a run, so that no two are the same.
var sent atomic.Uint64

// orderOf is the n-th order; all have one length.
func orderOf(n uint64) string { return fmt.Sprintf("o-%012d", n) }

// request is what stands before and behind the order of an HTTP/1.1 request.
var request = func() (parts [2]string) {
	body := strings.TrimSpace(arguments)
	parts[0] = "POST /v1/tenants/" + tenant + "/orders/"
	parts[1] = "/quote HTTP/1.1\r\nHost: " + domain + "\r\nContent-Type: application/json\r\n" +
		userHeader + ": " + user + "\r\n" + roleHeader + ": " + role + "\r\n" + tenantHeader + ": " + tenant + "\r\n" +
		"x-writ-envelope: " + strings.TrimSpace(envelope) + "\r\n" +
		fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + body
	return parts
}()

// connection is one kept-alive HTTP/1.1 connection. One goroutine at a time
// sends, one at a time receives.
type connection struct {
	conn   net.Conn
	reader *bufio.Reader
	// order is that of the call in flight.
	order string
	out   []byte
	body  bytes.Buffer
}

func dial(ctx context.Context, address string) (*connection, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return &connection{conn: conn, reader: bufio.NewReaderSize(conn, 8<<10)}, nil
}

// send sends a call that was never sent before.
func (c *connection) send() error {
	c.order = orderOf(sent.Add(1))
	c.out = append(c.out[:0], request[0]...)
	c.out = append(c.out, c.order...)
	c.out = append(c.out, request[1]...)
	if _, err := c.conn.Write(c.out); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// receive reads the whole answer, which must be the upstream's to this very call.
func (c *connection) receive() error {
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	defer response.Body.Close()
	c.body.Reset()
	if _, err := c.body.ReadFrom(io.LimitReader(response.Body, 1<<20)); err != nil {
		return fmt.Errorf("receive the body: %w", err)
	}
	if response.StatusCode != http.StatusOK || !bytes.Contains(c.body.Bytes(), []byte(c.order)) {
		return fmt.Errorf("call %s was answered %d: %.512s", c.order, response.StatusCode, c.body.Bytes())
	}
	return nil
}

// ask sends a call and reads its answer.
func (c *connection) ask() error {
	if err := c.send(); err != nil {
		return err
	}
	return c.receive()
}
