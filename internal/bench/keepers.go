// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// rawWriter writes each record by itself.
type rawWriter struct {
	file  *os.File
	frame []byte
}

func openRawWrite(_ context.Context, on *bench, file string) (keeper, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return &rawWriter{file: f, frame: make([]byte, on.sample.frame)}, err
}

func (k *rawWriter) keep(context.Context) error {
	_, err := k.file.Write(k.frame)
	return err
}

func (k *rawWriter) close() error { return k.file.Close() }

// rawKind is what a group commit waits for.
type rawKind int

const (
	rawWritten rawKind = iota
	rawSynced
	rawRemote
)

// The ledger's own bounds of a batch.
const (
	rawRecords = 256
	rawBytes   = 192 << 10
)

// rawGroup is group commit and nothing else: one goroutine writes what has come while it
// wrote before. Each batch has the bytes of a head besides, as a ledger's has.
type rawGroup struct {
	kind  rawKind
	file  *os.File
	conn  net.Conn
	frame []byte
	head  []byte
	queue chan chan error
	ended chan struct{}
	waits sync.Pool
}

func openRawGroup(kind rawKind) func(context.Context, *bench, string) (keeper, error) {
	return func(ctx context.Context, on *bench, file string) (keeper, error) {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		k := &rawGroup{
			kind: kind, file: f, frame: make([]byte, on.sample.frame), head: make([]byte, on.sample.head),
			queue: make(chan chan error, 4096), ended: make(chan struct{}),
			waits: sync.Pool{New: func() any { return make(chan error, 1) }},
		}
		if kind == rawRemote {
			if k.conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", on.storeAt); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		go k.run()
		return k, nil
	}
}

func (k *rawGroup) keep(context.Context) error {
	wait := k.waits.Get().(chan error)
	k.queue <- wait
	err := <-wait
	k.waits.Put(wait)
	return err
}

func (k *rawGroup) run() {
	defer close(k.ended)
	var group []chan error
	var batch []byte
	for wait := range k.queue {
		runtime.Gosched() // as the ledger does
		group, batch = append(group[:0], wait), append(batch[:0], k.frame...)
		for more := true; more && len(group) < rawRecords && len(batch) < rawBytes; {
			select {
			case wait, more = <-k.queue:
				if more {
					group, batch = append(group, wait), append(batch, k.frame...)
				}
			default:
				more = false
			}
		}
		err := k.commit(append(batch, k.head...))
		for _, wait := range group {
			wait <- err
		}
	}
}

func (k *rawGroup) commit(batch []byte) error {
	if _, err := k.file.Write(batch); err != nil || k.kind == rawWritten {
		return err
	}
	if err := unix.Fdatasync(int(k.file.Fd())); err != nil || k.kind == rawSynced {
		return err
	}
	if _, err := k.conn.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(batch)))); err != nil {
		return err
	}
	if _, err := k.conn.Write(batch); err != nil {
		return err
	}
	_, err := io.ReadFull(k.conn, make([]byte, 1))
	return err
}

func (k *rawGroup) close() error {
	close(k.queue)
	<-k.ended
	err := k.file.Close()
	if k.conn != nil {
		err = errors.Join(err, k.conn.Close())
	}
	return err
}

// startRawStore starts the other end of rawRemote.
func (on *bench) startRawStore(ctx context.Context) (err error) {
	if on.storeAt, err = freeAddress(ctx); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if on.store, err = start(on.at.data, "store", self, storeCommand, on.storeAt, filepath.Join(on.at.data, "store.bin")); err != nil {
		return err
	}
	return awaitListener(ctx, on.store, "tcp", on.storeAt)
}

// awaitListener waits until a program listens.
func awaitListener(ctx context.Context, p *process, network, address string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err == nil {
			return conn.Close()
		}
		if err := p.ended(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen: %w", p.command.Path, err)
		case <-time.After(time.Millisecond):
		}
	}
}

// serveRawStore writes and syncs what comes, for one connection after the other, and
// answers each batch with a byte.
func serveRawStore(address, file string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		err = storeFrom(conn, file)
		if err = errors.Join(err, conn.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "bench: store:", err)
		}
	}
}

func storeFrom(conn net.Conn, file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	in, batch := bufio.NewReaderSize(conn, 1<<20), make([]byte, 1<<20)
	for {
		if _, err := io.ReadFull(in, batch[:4]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		size := binary.LittleEndian.Uint32(batch)
		if _, err := io.ReadFull(in, batch[:size]); err != nil {
			return err
		}
		if _, err := f.Write(batch[:size]); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		if _, err := conn.Write([]byte{1}); err != nil {
			return err
		}
	}
}

// ledgerKeeper keeps in a ledger, and sends that to the collector if it must.
type ledgerKeeper struct {
	ledger     *ledger.Ledger
	entry      ledger.Entry
	durability writv1.Durability
	stop       func() error
}

func openLedger(d writv1.Durability) func(context.Context, *bench, string) (keeper, error) {
	return func(ctx context.Context, on *bench, dir string) (keeper, error) {
		l, _, err := ledger.Open(ledger.Options{Dir: dir, Origin: benchOrigin, MaxBytes: ledgerBytes, AcknowledgeTimeout: readyTimeout})
		if err != nil {
			return nil, err
		}
		k := &ledgerKeeper{ledger: l, entry: on.sample.decision, durability: d, stop: func() error { return nil }}
		if d == writv1.Durability_DURABILITY_REMOTE {
			k.stop, err = on.collector.take(ctx, l)
		}
		return k, err
	}
}

func (k *ledgerKeeper) keep(ctx context.Context) error {
	_, err := k.ledger.Append(ctx, k.entry, k.durability)
	return err
}

func (k *ledgerKeeper) close() error { return errors.Join(k.stop(), k.ledger.Close(nil)) }

// collectorProcess is a collector over loopback.
type collectorProcess struct {
	*process
	address, agents string
	key             note.Verifier
}

func startCollector(ctx context.Context, at places) (*collectorProcess, error) {
	dir := filepath.Join(at.data, "collector")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory: %w", err)
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	c := &collectorProcess{address: address, agents: filepath.Join(dir, "agents")}
	config := &writv1.CollectorConfig{DataDir: filepath.Join(dir, "data"), Listener: address, AgentsFile: c.agents}
	file := filepath.Join(dir, "collector.yaml")
	if err := errors.Join(os.WriteFile(c.agents, nil, 0o600), writeYAML(file, config)); err != nil {
		return nil, err
	}
	if c.process, err = start(dir, "collector", at.writ, "collector", "--config", file); err != nil {
		return nil, err
	}
	if err := awaitListener(ctx, c.process, "tcp", address); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	text, err := os.ReadFile(filepath.Join(dir, "data", "collector.vkey"))
	if err == nil {
		c.key, err = note.NewVerifier(strings.TrimSpace(string(text)))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the collector's key: %w", err), c.stop())
	}
	return c, nil
}

// take has the collector take a ledger, until the function that it returns is called.
func (c *collectorProcess) take(ctx context.Context, l *ledger.Ledger) (stop func() error, err error) {
	if err := os.WriteFile(c.agents, []byte(l.VerifierKey()+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("make the ledger known: %w", err)
	}
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to the collector: %w", err)
	}
	sender := stream.NewSender(stream.SenderOptions{Ledger: l, Client: writv1.NewLedgerServiceClient(conn), Collector: c.key})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- sender.Run(ctx) }()
	return func() error {
		cancel()
		return errors.Join(<-ended, conn.Close())
	}, nil
}
