// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// starting is one way to start on a large ledger: seconds, start by start.
type starting struct {
	Title string    `json:"title"`
	Took  []float64 `json:"seconds"`
	// CPU is what the process that starts takes, on all cores.
	CPU []float64 `json:"cpu_seconds"`
	// Least is reading and hashing the same bytes.
	Least []float64 `json:"raw_seconds"`

	// cold says that the kernel forgets the files before.
	cold  bool
	start func(ctx context.Context) (took, cpu time.Duration, err error)
}

// starts is what they started on.
type starts struct {
	Bytes   int64       `json:"bytes"`
	Records uint64      `json:"records"`
	Ways    []*starting `json:"ways"`
}

// bigLedger is the data directory of an agent that was killed.
type bigLedger struct {
	at     places
	data   string
	config string
	socket string
	size   uint64
	bytes  int64
}

// snapshotShort is how many records the snapshot is behind: as many as make the next.
const snapshotShort = 10_000

// measureStarts writes a large ledger and starts on it.
func measureStarts(ctx context.Context, at places, set ledgerSettings, sample *recorded, progress io.Writer) (*starts, error) {
	big, err := newBigLedger(ctx, at, set.Big, sample)
	if err != nil {
		return nil, fmt.Errorf("write a large ledger: %w", err)
	}
	out := &starts{Bytes: big.bytes, Records: big.size, Ways: []*starting{
		{Title: "the ledger verified and opened", start: big.open},
		{Title: "the same, and the agent's state folded from all of it", start: big.fold},
		{Title: "the same, with files that are not in memory", start: big.fold, cold: true},
		{Title: "`writ agent` killed, until it serves, without a snapshot", start: big.agent},
	}}
	if err := out.measure(ctx, big, set.Starts, progress); err != nil {
		return nil, err
	}
	if err := big.snapshot(); err != nil {
		return nil, fmt.Errorf("write a snapshot: %w", err)
	}
	with := &starts{Ways: []*starting{{Title: "`writ agent` killed, until it serves, with a snapshot 10,000 records ago", start: big.agent}}}
	if err := with.measure(ctx, big, set.Starts, progress); err != nil {
		return nil, err
	}
	out.Ways = append(out.Ways, with.Ways...)
	return out, nil
}

func (s *starts) measure(ctx context.Context, big *bigLedger, times int, progress io.Writer) error {
	for n := range times {
		progressOf(progress, "start", n+1, times)
		for _, w := range s.Ways {
			if w.cold {
				if err := forget(big.ledger()); err != nil {
					return err
				}
			}
			took, cpu, err := w.start(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", w.Title, err)
			}
			if w.cold {
				if err := forget(big.ledger()); err != nil {
					return err
				}
			}
			begin := time.Now()
			if err := hashFiles(big.ledger()); err != nil {
				return err
			}
			w.Took, w.CPU = append(w.Took, took.Seconds()), append(w.CPU, cpu.Seconds())
			w.Least = append(w.Least, time.Since(begin).Seconds())
		}
	}
	return nil
}

// forget has the kernel forget what it holds of a ledger's files.
func forget(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.dlog"))
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = errors.Join(unix.Fdatasync(int(f.Fd())), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
		if err != nil {
			return fmt.Errorf("forget %s: %w", name, err)
		}
	}
	return nil
}

func (b *bigLedger) ledger() string { return filepath.Join(b.data, "ledger") }

func (b *bigLedger) options(fold func(*writv1.Record) error) ledger.Options {
	return ledger.Options{Dir: b.ledger(), Origin: benchOrigin, MaxBytes: ledgerBytes, OnRecord: fold}
}

// newBigLedger writes decisions and their outcomes until there are so many bytes.
func newBigLedger(ctx context.Context, at places, bytes int64, sample *recorded) (*bigLedger, error) {
	s := &stand{row: rows[2], address: "127.0.0.1:9"}
	dir := filepath.Join(at.data, "big")
	config := s.config(at, dir)
	config.Ledger.Origin = benchOrigin
	b := &bigLedger{at: at, data: config.GetDataDir(), config: filepath.Join(dir, "agent.yaml"), socket: strings.TrimPrefix(config.GetListeners().GetEnvoy(), "unix:")}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = writeBundle(config.GetBundleDir(), s.catalogue(places{upstream: "127.0.0.1:9"}))
	}
	if err := errors.Join(err, writeYAML(b.config, config)); err != nil {
		return nil, err
	}
	l, _, err := ledger.Open(b.options(nil))
	if err != nil {
		return nil, err
	}
	for n := uint64(1); l.Status().Bytes < bytes; n++ {
		id := binary.BigEndian.AppendUint64(make([]byte, 8, 16), n)
		for _, entry := range []ledger.Entry{sample.decision, sample.outcome} {
			entry.DecisionID = id
			if err := l.AppendAsync(ctx, entry); err != nil {
				return nil, errors.Join(err, l.Close(nil))
			}
		}
	}
	if err := l.Close(nil); err != nil {
		return nil, err
	}
	b.size, b.bytes = l.Status().Size, l.Status().Bytes
	return b, nil
}

func (b *bigLedger) open(context.Context) (took, cpu time.Duration, err error) {
	return b.opened(nil)
}

func (b *bigLedger) fold(context.Context) (took, cpu time.Duration, err error) {
	return b.opened(agent.NewState(1 << 20).Fold)
}

func (b *bigLedger) opened(fold func(*writv1.Record) error) (took, cpu time.Duration, err error) {
	var l *ledger.Ledger
	_, took, cpu, _, err = measured(func() (int, error) {
		var err error
		l, _, err = ledger.Open(b.options(fold))
		return 1, err
	})
	if err != nil {
		return 0, 0, err
	}
	return took, cpu, l.Close(nil)
}

// agent starts the agent, waits until it listens for Envoy, and kills it.
func (b *bigLedger) agent(ctx context.Context) (took, cpu time.Duration, err error) {
	begin := time.Now()
	p, err := start(filepath.Dir(b.config), "agent", b.at.writ, "agent", "--config", b.config)
	if err != nil {
		return 0, 0, err
	}
	err = awaitListener(ctx, p, "unix", b.socket)
	took = time.Since(begin)
	cpu, cpuErr := cpuTime(p.pid())
	err = errors.Join(err, cpuErr, p.command.Process.Kill())
	<-p.exited
	if conn, dialErr := net.Dial("unix", b.socket); dialErr == nil {
		err = errors.Join(err, errors.New("somebody else listens there"), conn.Close())
	}
	return took, cpu, err
}

// snapshot folds all but the newest records into a snapshot, as an agent does that has
// had them acknowledged.
func (b *bigLedger) snapshot() error {
	var head ledger.Head
	state := agent.NewState(1 << 20)
	l, recovery, err := ledger.Open(b.options(func(r *writv1.Record) error {
		if r.GetIndex()+snapshotShort >= b.size {
			return nil
		}
		head.Size = r.GetIndex() + 1
		return state.Fold(r)
	}))
	if err != nil {
		return err
	}
	root, err := l.RootAt(head.Size)
	if err == nil {
		err = state.SaveSnapshot(b.ledger(), recovery.Origin, root)
	}
	return errors.Join(err, l.Close(nil))
}
