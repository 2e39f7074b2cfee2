// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Sizes of the ledgers that proofs are made in: verified is read as a whole, each head
// signed for many records or for one.
const (
	verifiedRecords = 100_000
	singleRecords   = 10_000
	// noWriters is a ledger whose records nobody waits for: its batches are full.
	noWriters = 0
	// proofTime is how long each operation is repeated in a round.
	proofTime = 200 * time.Millisecond
)

// proof is one operation on heads and proofs: what it takes, and what its raw
// counterpart takes, in microseconds of CPU, round by round.
type proof struct {
	Title string    `json:"title"`
	Raw   string    `json:"raw"`
	Took  []float64 `json:"microseconds"`
	Least []float64 `json:"raw_microseconds"`
	// Note says on what.
	Note string `json:"note,omitempty"`

	own, raw func() error
	// each is how many records one operation is for.
	each int
}

// measureLedgerParts signs heads, makes and checks proofs, and verifies ledgers.
func measureLedgerParts(ctx context.Context, at places, set ledgerSettings, sample *recorded, progress io.Writer) ([]*proof, error) {
	full, err := newVerified(filepath.Join(at.data, "full"), sample, noWriters, verifiedRecords)
	if err != nil {
		return nil, err
	}
	shared, err := newVerified(filepath.Join(at.data, "shared"), sample, set.Writers, verifiedRecords)
	if err != nil {
		return nil, err
	}
	single, err := newVerified(filepath.Join(at.data, "single"), sample, 1, singleRecords)
	if err != nil {
		return nil, err
	}
	proofs := append(shared.proofs(), full.verify("verify a ledger of full batches, a record"),
		shared.verify("verify a ledger, a record"), single.verify("verify a ledger with a head for each record, a record"))
	for round := range set.Rounds {
		progressOf(progress, "proofs, round", round+1, set.Rounds)
		for _, p := range proofs {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			own, err := repeated(p.own)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.Title, err)
			}
			least, err := repeated(p.raw)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.Title, err)
			}
			p.Took, p.Least = append(p.Took, own/float64(p.each)), append(p.Least, least/float64(p.each))
		}
	}
	return proofs, nil
}

// repeated returns the microseconds of CPU that something takes.
func repeated(do func() error) (float64, error) {
	n := 0
	_, _, cpu, _, err := measured(func() (int, error) {
		for start := time.Now(); time.Since(start) < proofTime; n++ {
			if err := do(); err != nil {
				return 0, err
			}
		}
		return n, nil
	})
	return micros(cpu) / float64(max(n, 1)), err
}

// verified is a ledger that is not written any more.
type verified struct {
	dir      string
	records  int
	perHead  float64
	verifier note.Verifier
	signer   note.Signer
	last     ledger.Position
	sample   *recorded
}

// newVerified has so many writers write a ledger, each waiting for its records.
func newVerified(dir string, sample *recorded, writers, records int) (*verified, error) {
	l, _, err := ledger.Open(ledger.Options{Dir: dir, Origin: benchOrigin, MaxBytes: ledgerBytes})
	if err != nil {
		return nil, err
	}
	v := &verified{dir: dir, records: records, sample: sample}
	if writers == noWriters {
		err = v.queue(l)
	} else {
		err = v.write(l, writers)
	}
	if err := errors.Join(err, l.Close(nil)); err != nil {
		return nil, err
	}
	if v.verifier, err = note.NewVerifier(l.VerifierKey()); err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(dir, "log.key"))
	if err != nil {
		return nil, err
	}
	if v.signer, err = note.NewSigner(strings.TrimSpace(string(key))); err != nil {
		return nil, err
	}
	report, err := ledger.Verify(dir, v.verifier)
	if err == nil && report.Fault != nil {
		err = report.Fault
	}
	if err != nil {
		return nil, err
	}
	v.perHead = float64(report.Records) / float64(report.Heads)
	return v, nil
}

// queue has records written that nobody waits for.
func (v *verified) queue(l *ledger.Ledger) error {
	for range v.records {
		if err := l.AppendAsync(context.Background(), v.sample.decision); err != nil {
			return err
		}
	}
	return nil
}

// write has writers write records, each the next when the last is written.
func (v *verified) write(l *ledger.Ledger, writers int) error {
	var group sync.WaitGroup
	var mu sync.Mutex // guards v.last
	errs := make([]error, writers)
	for i := range writers {
		group.Go(func() {
			for range v.records / writers {
				position, err := l.Append(context.Background(), v.sample.decision, writv1.Durability_DURABILITY_PROCESS)
				if err != nil {
					errs[i] = err
					return
				}
				mu.Lock()
				v.last = position
				mu.Unlock()
			}
		})
	}
	group.Wait()
	v.records = v.records / writers * writers
	return errors.Join(errs...)
}

// verify is the verification of all of it against reading and hashing its bytes.
func (v *verified) verify(title string) *proof {
	return &proof{
		Title: title, Raw: "SHA-256 over the file", each: v.records,
		Note: fmt.Sprintf("%d records, %.0f under a head", v.records, v.perHead),
		own: func() error {
			report, err := ledger.Verify(v.dir, v.verifier)
			if err == nil && report.Fault != nil {
				err = report.Fault
			}
			return err
		},
		raw: func() error { return hashFiles(v.dir) },
	}
}

// hashFiles reads and hashes the segments of a ledger.
func hashFiles(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.dlog"))
	if err != nil {
		return err
	}
	sum, buffer := sha256.New(), make([]byte, 1<<20)
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(sum, struct{ io.Reader }{f}, buffer)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// proofs are those of one record, the newest.
func (v *verified) proofs() []*proof {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	head := ledger.Head{Origin: v.verifier.Name(), Size: uint64(v.records)}
	text := head.AppendText(nil)
	signature := ed25519.Sign(private, text)
	receipt, receiptErr := v.last.Receipt()
	var leaf [65]byte
	return []*proof{
		{
			Title: "sign a head", Raw: "Ed25519 signature", each: 1,
			own: func() error { _, err := ledger.SignHead(head, v.signer); return err },
			raw: func() error { ed25519.Sign(private, text); return nil },
		},
		{
			Title: "prove a record's inclusion", Raw: "SHA-256 of the nodes of its batch", each: 1,
			Note: fmt.Sprintf("in %d records, %.0f under a head", v.records, v.perHead),
			own:  func() error { _, err := v.last.Receipt(); return errors.Join(err, receiptErr) },
			raw: func() error {
				for range int(v.perHead) {
					sum := sha256.Sum256(leaf[:])
					copy(leaf[1:], sum[:])
				}
				return nil
			},
		},
		{
			Title: "verify an inclusion", Raw: "Ed25519 verification", each: 1,
			own: func() error { _, _, err := ledger.VerifyReceipt(receipt, v.verifier); return err },
			raw: func() error {
				if !ed25519.Verify(public, text, signature) {
					return errors.New("a signature does not verify")
				}
				return nil
			},
		},
	}
}

// replayBenchmark makes recorded decisions again, reading and verifying them included.
const replayBenchmark = "go test -run='^$' -bench='^BenchmarkReplay$' -benchtime=1x ./cmd/writ"

// measureReplay returns recorded decisions that are made again, in a minute of each core.
func measureReplay(ctx context.Context, dir string, times int, progress io.Writer) ([]float64, error) {
	program := filepath.Join(dir, "replay.test")
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, "./cmd/writ").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the benchmark of replay: %w\n%s", err, out)
	}
	var all []float64
	for n := range times {
		progressOf(progress, "replay", n+1, times)
		command := exec.CommandContext(ctx, program, "-test.run=^$", "-test.bench=^BenchmarkReplay$", "-test.benchtime=1x")
		command.Dir = "cmd/writ"
		out, err := command.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("run the benchmark of replay: %w\n%s", err, out)
		}
		fields := strings.Fields(string(out))
		i := slices.Index(fields, "records/core-minute")
		if i < 1 {
			return nil, fmt.Errorf("read the benchmark of replay:\n%s", out)
		}
		rate, err := strconv.ParseFloat(fields[i-1], 64)
		if err != nil {
			return nil, fmt.Errorf("read the benchmark of replay: %w", err)
		}
		all = append(all, rate)
		runtime.GC()
	}
	return all, nil
}
