// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// ledgerCommand measures the ledger alone: bin/bench ledger.
const ledgerCommand = "ledger"

// ledgerSettings say how a run of the ledger measures.
type ledgerSettings struct {
	Rounds int `json:"rounds"`
	// Load is how long each load lasts, Writers how many there are in the closed loop.
	Load    time.Duration `json:"load_nanoseconds"`
	Writers int           `json:"writers"`
	// Rate is that of the open loop, in records a second.
	Rate int `json:"rate_per_second"`
	// Big is how large the ledger is that is started on, Starts how often.
	Big    int64 `json:"big_bytes"`
	Starts int   `json:"starts"`
	// Replays is how often recorded decisions are made again.
	Replays int `json:"replays"`
}

// ledgerOptions are the flags.
type ledgerOptions struct {
	ledgerSettings
	dir, json, doc, writ string
}

func ledgerFlags(args []string) ledgerOptions {
	var o ledgerOptions
	set := flag.NewFlagSet("bench ledger", flag.ExitOnError)
	set.IntVar(&o.Rounds, "rounds", 12, "how often each row is measured; six at least for an interval of 95%")
	set.DurationVar(&o.Load, "load", time.Second, "how long each load lasts: two for each row of each round")
	set.IntVar(&o.Writers, "writers", 64, "writers of the closed loop")
	set.IntVar(&o.Rate, "rate", 1000, "records a second of the open loop")
	set.Int64Var(&o.Big, "big", 1<<30, "bytes of the ledger that is started on; 0 leaves that out")
	set.IntVar(&o.Starts, "starts", 5, "how often it is started on")
	set.IntVar(&o.Replays, "replays", 6, "how often recorded decisions are made again; 0 leaves that out")
	set.StringVar(&o.dir, "dir", ".cache/bench", "directory of what is recorded: one on a real disk")
	set.StringVar(&o.json, "json", "", "write everything as JSON to this file too")
	set.StringVar(&o.doc, "doc", "", "write the Markdown between the marks of this file too")
	set.StringVar(&o.writ, "writ", "bin/writ", "the collector's and the agent's program")
	// ExitOnError: Parse returns no error.
	_ = set.Parse(args)
	return o
}

// benchLedger measures the ledger, and writes what it measured.
func benchLedger(ctx context.Context, o ledgerOptions) error {
	made, err := gatherLedger(ctx, o)
	if err != nil {
		return err
	}
	return write(made, o.doc, o.json)
}

// gatherLedger measures everything, with the agent's pace of the garbage collector.
func gatherLedger(ctx context.Context, o ledgerOptions) (made *ledgerReport, err error) {
	if o.Rounds < 1 || o.Writers < 1 || o.Rate < 1 || o.Load <= 0 {
		return nil, errors.New("rounds, load, writers and rate are above zero")
	}
	debug.SetGCPercent(400)
	at, remove, err := makePlaces(o.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	at.writ = o.writ
	sample, err := newSample(filepath.Join(at.data, "sample"))
	if err != nil {
		return nil, err
	}
	made = &ledgerReport{Settings: o.ledgerSettings, RecordBytes: sample.frame, LoadBefore: loadAverage()}
	if made.About, err = lookWithoutEnvoy(ctx, at); err != nil {
		return nil, err
	}
	if made.Appends, err = measureAppends(ctx, at, o.ledgerSettings, sample, os.Stderr); err != nil {
		return nil, err
	}
	if made.Parts, err = measureLedgerParts(ctx, at, o.ledgerSettings, sample, os.Stderr); err != nil {
		return nil, err
	}
	if o.Replays > 0 {
		if made.Replays, err = measureReplay(ctx, at.data, o.Replays, os.Stderr); err != nil {
			return nil, err
		}
	}
	if o.Big > 0 {
		made.Starts, err = measureStarts(ctx, at, o.ledgerSettings, sample, os.Stderr)
	}
	made.LoadAfter = loadAverage()
	return made, err
}

// recordedDecision is the body that the row "writ ext_authz" records of a call.
//
//go:embed testdata/decision.json
var recordedDecision []byte

// recorded is what is recorded, and how much of a disk it takes.
type recorded struct {
	decision, outcome ledger.Entry
	// frame is the size of the decision in a segment, head what a batch has beside.
	frame, head int
}

// newSample reads the sample, and measures it in a ledger of its own.
func newSample(dir string) (*recorded, error) {
	body := &writv1.DecisionRecord{}
	if err := protojson.Unmarshal(recordedDecision, body); err != nil {
		return nil, fmt.Errorf("read the sample: %w", err)
	}
	s := &recorded{head: 9 + 108}
	digest := make([]byte, 32)
	s.decision = ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: body.GetPrincipal().GetTenant(), DecisionID: make([]byte, 16), BundleDigest: digest, Body: body,
	}
	s.outcome = ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_OUTCOME, Tenant: body.GetPrincipal().GetTenant(), DecisionID: make([]byte, 16), BundleDigest: digest,
		Body: &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED},
	}
	l, _, err := ledger.Open(ledger.Options{Dir: dir, Origin: benchOrigin})
	if err != nil {
		return nil, err
	}
	before := l.Status().Bytes
	_, err = l.Append(context.Background(), s.decision, writv1.Durability_DURABILITY_PROCESS)
	s.frame = int(l.Status().Bytes-before) - s.head
	return s, errors.Join(err, l.Close(nil))
}

// benchOrigin is the first part of the names of all ledgers here.
const benchOrigin = "bench.example/agent/ledger"

// progressOf tells how far a run is.
func progressOf(progress io.Writer, what string, n, of int) {
	fmt.Fprintf(progress, "bench: %s, %d of %d\n", what, n, of)
}
