// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Agent is a ledger with the records that say how its agent is.
type Agent struct {
	Ledger
	// Epoch is that of the last record.
	Epoch uint64
	// Newest is the last record; Heartbeat and Bundle are the last of their kind, zero
	// where there is none.
	Newest, Heartbeat, Bundle Stored
	// Findings is how many findings there are about the ledger, and Kinds what they are.
	Findings int
	Kinds    []string
}

// agentColumns are those of an Agent; the records are found by the index on their kinds,
// which SQLite takes only where its condition stands word for word.
const agentColumns = `SELECT origin, vkey, size, root, head, first_time, last_time, epoch,
	coalesce((SELECT max(seq) FROM records WHERE ledger = l.id), 0),
	coalesce((SELECT max(seq) FROM records WHERE ledger = l.id AND kind = 4 AND kind IN (4, 5)), 0),
	coalesce((SELECT max(seq) FROM records WHERE ledger = l.id AND kind = 5 AND kind IN (4, 5)), 0),
	(SELECT count(*) FROM findings WHERE origin = l.origin),
	coalesce((SELECT group_concat(DISTINCT kind) FROM findings WHERE origin = l.origin), '')
	FROM ledgers AS l`

// Agents lists agents by the origin of their ledger, those after one, so many at most.
func (s *Store) Agents(ctx context.Context, after string, limit int) ([]Agent, error) {
	return s.agents(ctx, agentColumns+` WHERE origin > ? ORDER BY origin LIMIT ?`, after, limit)
}

// Agent returns the agent with a ledger, and whether it is held.
func (s *Store) Agent(ctx context.Context, origin string) (Agent, bool, error) {
	found, err := s.agents(ctx, agentColumns+` WHERE origin = ?`, origin)
	if err != nil || len(found) == 0 {
		return Agent{}, false, err
	}
	return found[0], true, nil
}

// seen are the numbers of an agent's records.
type seen struct{ newest, heartbeat, bundle int64 }

func (s *Store) agents(ctx context.Context, query string, args ...any) ([]Agent, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	var at []seen
	out, err := collect(rows, func(rows *sql.Rows) (a Agent, err error) {
		var first, last int64
		var r seen
		var kinds string
		err = rows.Scan(&a.Origin, &a.VerifierKey, &a.Size, &a.Root, &a.Head, &first, &last, &a.Epoch,
			&r.newest, &r.heartbeat, &r.bundle, &a.Findings, &kinds)
		a.FirstTime, a.LastTime = time.Unix(0, first), time.Unix(0, last)
		if kinds != "" {
			a.Kinds = slices.Sorted(strings.SplitSeq(kinds, ","))
		}
		at = append(at, r)
		return a, err
	})
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	for i, r := range at {
		for _, record := range []struct {
			seq int64
			to  *Stored
		}{{r.newest, &out[i].Newest}, {r.heartbeat, &out[i].Heartbeat}, {r.bundle, &out[i].Bundle}} {
			if record.seq == 0 {
				continue
			}
			one, err := s.load(ctx, []int64{record.seq})
			if err != nil {
				return nil, fmt.Errorf("list agents: %w", err)
			}
			*record.to = one[0]
		}
	}
	return out, nil
}
