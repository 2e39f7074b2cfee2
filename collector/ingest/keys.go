// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// maxFile bounds the file of agents' keys: some 40,000 of them.
const maxFile = 8 << 20

// rereadAfter is the least time between two readings of the file, so that strangers
// cannot keep the collector reading.
const rereadAfter = time.Second

// Key is what an agent signs its ledger with.
type Key struct {
	note.Verifier
	// Text is the key in the vkey form of C2SP signed-note.
	Text string
}

// Keys are the agents that are known, by the origin of their ledger: those of the
// configuration, and those of a file that is read again when agents connect. It is safe
// for use by several goroutines.
type Keys struct {
	listed map[string]Key
	file   string
	clock  func() time.Time
	log    *slog.Logger

	mu sync.Mutex // guards what follows
	// read has the keys of the file, which may be read again from next on.
	read map[string]Key
	next time.Time
}

// NewKeys returns the keys of the configuration, and of a file with one vkey a line,
// where there is one. Blank lines and those that begin with # are passed over; a line
// that is no key is an error here and, later, leaves the keys as they were.
func NewKeys(config []*writv1.AgentKey, file string, clock func() time.Time, log *slog.Logger) (*Keys, error) {
	k := &Keys{listed: make(map[string]Key, len(config)), file: file, clock: clock, log: log}
	for i, agent := range config {
		key, err := parseKey(agent.GetPublicKey())
		if err != nil {
			return nil, fmt.Errorf("agents[%d].public_key: %w", i, err)
		}
		k.listed[key.Name()] = key
	}
	if file == "" {
		return k, nil
	}
	return k, k.reread()
}

func parseKey(text string) (Key, error) {
	verifier, err := note.NewVerifier(text)
	if err != nil {
		return Key{}, fmt.Errorf("not a key in vkey form: %w", err)
	}
	return Key{Verifier: verifier, Text: text}, nil
}

// Find returns the key of a ledger. It reads the file again, at most once a second.
func (k *Keys) Find(origin string) (Key, bool) {
	if key, ok := k.listed[origin]; ok {
		return key, true
	}
	if k.file == "" {
		return Key{}, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := k.clock(); !now.Before(k.next) {
		k.next = now.Add(rereadAfter)
		if err := k.reread(); err != nil {
			k.log.Error("the agents' keys could not be read again; those that were read stand", "error", err)
		}
	}
	key, ok := k.read[origin]
	return key, ok
}

// reread reads the file if it is another than it was. It is called with mu held, or
// before others know of k.
func (k *Keys) reread() error {
	file, err := os.Open(k.file)
	if errors.Is(err, os.ErrNotExist) {
		k.read = nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the agents' keys: %w", err)
	}
	defer file.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return fmt.Errorf("read the agents' keys: %w", err)
	}
	if len(text) > maxFile {
		return fmt.Errorf("read the agents' keys: %s has more than %d bytes", k.file, maxFile)
	}
	read, err := k.parse(text)
	if err != nil {
		return err
	}
	k.read = read
	return nil
}

func (k *Keys) parse(text []byte) (map[string]Key, error) {
	read := make(map[string]Key)
	number := 0
	for line := range bytes.Lines(text) {
		number++
		trimmed := strings.TrimSpace(string(line))
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		key, err := parseKey(trimmed)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", k.file, number, err)
		}
		read[key.Name()] = key
	}
	return read, nil
}
