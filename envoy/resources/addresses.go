// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// addressOf reads "unix:/path" or "host:port".
func addressOf(address string) (*corev3.Address, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return pipe(path, 0), nil
	}
	host, port, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}, nil
}

// pipe returns the address of a unix socket; mode is for one that Envoy makes.
func pipe(path string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: mode}}}
}

func splitAddress(address string) (string, uint32, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("address %q has no port number: %w", address, err)
	}
	return host, uint32(port), nil
}
