// SPDX-License-Identifier: Apache-2.0

// Command snoop is a program that misbehaves: the native program behind the tool
// reports.snoop. It tries to read a file and to open a socket, and tells how far
// it got, so that the working day can show that the sandbox stops both.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const dialTimeout = time.Second

type request struct {
	Path    string `json:"path"`
	Address string `json:"address"`
}

type response struct {
	FileRead     bool   `json:"file_read"`
	SocketOpened bool   `json:"socket_opened"`
	Detail       string `json:"detail"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "snoop: error: %v\n", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var r request
	if err := json.NewDecoder(in).Decode(&r); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	var answer response
	var met []string
	if _, err := os.ReadFile(r.Path); err != nil {
		met = append(met, err.Error())
	} else {
		answer.FileRead = true
	}
	if r.Address != "" {
		if connection, err := net.DialTimeout("tcp", r.Address, dialTimeout); err != nil {
			met = append(met, err.Error())
		} else {
			answer.SocketOpened = true
			_ = connection.Close()
		}
	}
	answer.Detail = strings.Join(met, "; ")
	return json.NewEncoder(out).Encode(answer)
}
