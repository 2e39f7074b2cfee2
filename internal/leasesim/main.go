// SPDX-License-Identifier: Apache-2.0

// Leasesim simulates a thousand agents that draw on one shared budget by slices
// (state/leases): their clocks are an hour apart, they are killed, their machines go
// down, their volumes are lost, and the network parts them from the collector for
// minutes. It writes the figures and a picture of the run into the documentation. The
// machines are the real ones; time, chance and the network are simulated, so that a seed
// gives the same figures every time.
//
//	go run ./internal/leasesim            # from the root of the tree
//	go run ./internal/leasesim -seed 7 -print
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
)

const (
	// usualSeed is the one whose figures the documentation shows.
	usualSeed  = 1
	docPage    = "docs/budgets.md"
	docPicture = "docs/leases.svg"
)

func main() {
	seed := flag.Uint64("seed", usualSeed, "the seed of chance")
	only := flag.Bool("print", false, "print the figures, and write nothing")
	flag.Parse()
	if err := run(*seed, *only); err != nil {
		fmt.Fprintln(os.Stderr, "leasesim: error:", err)
		os.Exit(1)
	}
}

func run(seed uint64, only bool) error {
	f := Run(seed)
	fmt.Print(table(&f))
	if only {
		return nil
	}
	page, err := os.ReadFile(docPage)
	if err != nil {
		return err
	}
	page, err = replaced(page, table(&f))
	if err != nil {
		return err
	}
	if err := os.WriteFile(docPage, page, 0o644); err != nil { //nolint:gosec // a page of the tree
		return err
	}
	return os.WriteFile(docPicture, []byte(graph(&f)), 0o644) //nolint:gosec // as above
}

// replaced returns the page with the table in place of the one that begins as it does.
func replaced(page []byte, table string) ([]byte, error) {
	head, _, _ := bytes.Cut([]byte(table), []byte("\n"))
	before, after, found := bytes.Cut(page, append(head, '\n'))
	if !found {
		return nil, fmt.Errorf("%s has no table that begins with %q", docPage, head)
	}
	for bytes.HasPrefix(after, []byte("|")) {
		_, after, _ = bytes.Cut(after, []byte("\n"))
	}
	return bytes.Join([][]byte{before, []byte(table), after}, nil), nil
}
