// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"net"

	"golang.org/x/sys/unix"
)

func openSocket(domain, kind int) error {
	fd, err := unix.Socket(domain, kind, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func tcpSocket([]string) error     { return openSocket(unix.AF_INET, unix.SOCK_STREAM) }
func udpSocket([]string) error     { return openSocket(unix.AF_INET6, unix.SOCK_DGRAM) }
func unixSocket([]string) error    { return openSocket(unix.AF_UNIX, unix.SOCK_STREAM) }
func netlinkSocket([]string) error { return openSocket(unix.AF_NETLINK, unix.SOCK_RAW) }

func socketpairDatagram([]string) error {
	_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	return err
}

func tcpConnect(a []string) error {
	c, err := net.Dial("tcp", a[0])
	if err != nil {
		return err
	}
	return c.Close()
}

func tcpListen([]string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return l.Close()
}
