// SPDX-License-Identifier: Apache-2.0

// Probe is a tool's program that does as its first argument says.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(mode string, args []string) error {
	switch mode {
	case "tell":
		return tell(args)
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	case "crash":
		var nowhere *int
		*nowhere = 1
	case "sleep":
		time.Sleep(time.Hour)
	case "spin":
		for {
		}
	case "flood":
		for {
			if _, err := os.Stdout.WriteString(strings.Repeat("x", 1<<16)); err != nil {
				return err
			}
		}
	case "report":
		for _, line := range args {
			fmt.Fprintln(os.Stderr, line)
		}
		_, err := os.Stdout.WriteString("{}")
		return err
	case "read":
		_, err := os.ReadFile(args[0])
		return err
	case "dial":
		_, err := net.Dial("tcp", "127.0.0.1:1")
		if err != nil && strings.Contains(err.Error(), "refused") {
			return nil // the network was reached: nobody listened
		}
		return err
	}
	return nil
}

// tell writes all that the program was given.
func tell(args []string) error {
	stdin, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	dir, err := os.ReadDir(".")
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"args": args, "stdin": string(stdin), "environment": os.Environ(), "files": len(dir),
	})
}
