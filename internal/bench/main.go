// SPDX-License-Identifier: Apache-2.0

// Command bench measures what writ costs: calls go through a real Envoy to one
// upstream, with no filter, with servers that do nothing behind Envoy's filters, and
// with the agent behind them. It prints Markdown, and JSON where -json says.
//
//	make bench JSON=bench.json
//	bin/bench -rounds 1 -load 200ms -parts=false
//
// With the argument ledger it measures the ledger alone, each way to keep a record
// against the least that does the same to a disk.
//
//	make bench-ledger JSON=ledger.json
//
// Rows are interleaved: each round measures all of them, and what is told of a row
// against another is the median of the ratios within the rounds. The no-op servers
// stand behind the very Envoy configuration that the agent stands behind, so that
// only the server differs. Every call is another one, an agent admits it, and every
// answer is checked to be the upstream's to that call; one that is not ends the run.
//
// It measures one machine with the load's source on it, which takes CPU too: ratios
// hold elsewhere, throughput and latencies do not.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Commands by which the program starts itself.
const (
	noopCommand     = "serve-noop"
	upstreamCommand = "serve-upstream"
	storeCommand    = "serve-store"
)

// options are the flags.
type options struct {
	settings
	only           string
	parts          bool
	dir, json, doc string
	writ, envoy    string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 2 && args[0] == noopCommand {
		return serveNoop(args[1])
	}
	if len(args) == 2 && args[0] == upstreamCommand {
		return serveUpstream(args[1])
	}
	if len(args) == 3 && args[0] == storeCommand {
		return serveRawStore(args[1], args[2])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 && args[0] == ledgerCommand {
		return benchLedger(ctx, ledgerFlags(args[1:]))
	}
	return benchCalls(ctx, flags(args))
}

func flags(args []string) options {
	var o options
	set := flag.NewFlagSet("bench", flag.ExitOnError)
	set.IntVar(&o.Rounds, "rounds", 12, "how often each row is measured; six at least for an interval of 95%")
	set.DurationVar(&o.Load, "load", 2*time.Second, "how long each load lasts: two for each row of each round")
	set.IntVar(&o.Connections, "connections", 64, "connections of the closed loop, and the most of the open one")
	set.IntVar(&o.Rate, "rate", 1000, "calls a second of the open loop")
	set.StringVar(&o.only, "rows", "", "measure only these rows: names with commas between")
	set.BoolVar(&o.parts, "parts", true, "run the Go benchmarks of the parts too")
	set.StringVar(&o.dir, "dir", ".cache/bench", "directory of what is recorded: one on a real disk")
	set.StringVar(&o.json, "json", "", "write everything as JSON to this file too")
	set.StringVar(&o.doc, "doc", "", "write the Markdown between the marks of this file too")
	set.StringVar(&o.writ, "writ", "bin/writ", "the agent's program")
	set.StringVar(&o.envoy, "envoy", os.Getenv("ENVOY"), "Envoy's program; default: $ENVOY, else the PATH's")
	// ExitOnError: Parse returns no error.
	_ = set.Parse(args)
	return o
}

// benchCalls measures, and writes what it measured.
func benchCalls(ctx context.Context, o options) error {
	made, err := gather(ctx, o)
	if err != nil {
		return err
	}
	return write(made, o.doc, o.json)
}

// write prints a report as Markdown, which it also writes between the marks of the file
// doc, and as JSON to another, where these are named.
func write(made interface{ markdown() string }, doc, asJSON string) error {
	text := made.markdown()
	fmt.Print(text)
	if doc != "" {
		if err := writeDoc(doc, text); err != nil {
			return err
		}
	}
	if asJSON == "" {
		return nil
	}
	data, err := json.MarshalIndent(made, "", "  ")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := os.WriteFile(asJSON, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return nil
}

func gather(ctx context.Context, o options) (made *report, err error) {
	chosen, err := choose(o.only)
	if err != nil {
		return nil, err
	}
	if o.Rounds < 1 || o.Connections < 1 || o.Rate < 1 || o.Load <= 0 {
		return nil, errors.New("rounds, load, connections and rate are above zero")
	}
	if o.envoy == "" {
		if o.envoy, err = exec.LookPath("envoy"); err != nil {
			return nil, fmt.Errorf("find Envoy: %w; set ENVOY to its path", err)
		}
	}
	at, remove, err := makePlaces(o.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	at.writ, at.envoy = o.writ, o.envoy
	about, err := look(ctx, at)
	if err != nil {
		return nil, err
	}
	results, err := measure(ctx, at, o.settings, chosen, os.Stderr)
	if err != nil {
		return nil, err
	}
	made = newReport(about, o.settings, results)
	if o.parts {
		if made.Parts, err = measureParts(ctx, at.data, os.Stderr); err != nil {
			return nil, err
		}
		made.Grants = grantRatios(made.Parts)
	}
	return made, nil
}

// choose returns the rows that are named, or all.
func choose(names string) ([]row, error) {
	if names == "" {
		return rows, nil
	}
	var chosen []row
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no row %q", name)
		}
		chosen = append(chosen, rows[i])
	}
	return chosen, nil
}
