// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/findings"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// defaultAgents is how many agents a page has where nobody says.
const defaultAgents = 50

// maxFindingsShown is how many findings are shown of one agent, the newest.
const maxFindingsShown = 256

// ErrNoAgent says that no ledger of that origin is held.
var ErrNoAgent = errors.New("no such agent is known")

// AgentSource is what is asked of a store about agents. A *store.Store is one.
type AgentSource interface {
	Agents(ctx context.Context, after string, limit int) ([]store.Agent, error)
	Agent(ctx context.Context, origin string) (store.Agent, bool, error)
	Findings(ctx context.Context, origin string) ([]store.Finding, error)
}

// AgentReader reads agents. Its methods may be called by several goroutines.
type AgentReader interface {
	// ListAgents returns a page of agents, by the origin of their ledger.
	ListAgents(ctx context.Context, r *writv1.ListAgentsRequest) (*writv1.ListAgentsResponse, error)
	// GetAgent returns one agent and the findings about it; ErrNoAgent where there is none.
	GetAgent(ctx context.Context, r *writv1.GetAgentRequest) (*writv1.GetAgentResponse, error)
}

// Hearing says when an agent is silent.
type Hearing struct {
	// Silence is after how long without a record it is. Default: that of findings.
	Silence time.Duration
	// Clock tells the time. Default: time.Now.
	Clock func() time.Time
}

// AgentsFromStore returns the AgentReader of a store that this process has open.
func AgentsFromStore(s AgentSource, h Hearing) AgentReader {
	if h.Silence <= 0 {
		h.Silence = findings.DefaultSilence
	}
	if h.Clock == nil {
		h.Clock = time.Now
	}
	return agentReader{s, h}
}

// AgentsFromStoreDir returns the AgentReader of the store in a directory, which is opened
// for each look at it.
func AgentsFromStoreDir(dir string, h Hearing) AgentReader { return AgentsFromStore(storeDir(dir), h) }

func (d storeDir) Agents(ctx context.Context, after string, limit int) (out []store.Agent, err error) {
	err = d.open(ctx, func(s *store.Store) error {
		out, err = s.Agents(ctx, after, limit)
		return err
	})
	return out, err
}

func (d storeDir) Agent(ctx context.Context, origin string) (out store.Agent, held bool, err error) {
	err = d.open(ctx, func(s *store.Store) error {
		out, held, err = s.Agent(ctx, origin)
		return err
	})
	return out, held, err
}

func (d storeDir) Findings(ctx context.Context, origin string) (out []store.Finding, err error) {
	err = d.open(ctx, func(s *store.Store) error {
		out, err = s.Findings(ctx, origin)
		return err
	})
	return out, err
}

type agentReader struct {
	source AgentSource
	Hearing
}

// ListAgents returns a page of agents.
func (r agentReader) ListAgents(ctx context.Context, req *writv1.ListAgentsRequest) (*writv1.ListAgentsResponse, error) {
	if err := check(req); err != nil {
		return nil, err
	}
	after, err := afterAgent(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultAgents
	}
	found, err := r.source.Agents(ctx, after, size+1)
	if err != nil {
		return nil, err
	}
	out := &writv1.ListAgentsResponse{}
	if len(found) > size {
		found = found[:size]
		out.NextPageToken = agentToken(found[size-1].Origin)
	}
	for _, a := range found {
		view, err := r.view(a)
		if err != nil {
			return nil, err
		}
		out.Agents = append(out.Agents, view)
	}
	return out, nil
}

// GetAgent returns one agent and the findings about it.
func (r agentReader) GetAgent(ctx context.Context, req *writv1.GetAgentRequest) (*writv1.GetAgentResponse, error) {
	if err := check(req); err != nil {
		return nil, err
	}
	found, held, err := r.source.Agent(ctx, req.GetOrigin())
	switch {
	case err != nil:
		return nil, err
	case !held:
		return nil, ErrNoAgent
	}
	out := &writv1.GetAgentResponse{}
	if out.Agent, err = r.view(found); err != nil {
		return nil, err
	}
	all, err := r.source.Findings(ctx, found.Origin)
	if err != nil {
		return nil, err
	}
	for _, f := range all[max(0, len(all)-maxFindingsShown):] {
		out.Findings = append(out.Findings, &writv1.Finding{
			Origin: f.Origin, Kind: f.Kind, Detail: f.Detail, HeldSize: f.HeldSize, HeldHead: f.HeldHead, Head: f.Head,
			FirstTime: timestamppb.New(f.FirstTime), LastTime: timestamppb.New(f.Time), Count: uint32(min(f.Count, math.MaxInt32)), //nolint:gosec // bounded
		})
	}
	return out, nil
}

// view is an agent as it is told of.
func (r agentReader) view(a store.Agent) (*writv1.Agent, error) {
	logID := ledger.LogID(a.Origin)
	out := &writv1.Agent{
		Origin: a.Origin, LogId: logID[:], Incarnation: a.Origin[strings.LastIndexByte(a.Origin, '/')+1:], Epoch: a.Epoch,
		State: writv1.AgentState_AGENT_STATE_HEARD, ReceiveTime: timestamppb.New(a.LastTime),
		Size: a.Size, Root: a.Root, Head: a.Head, Findings: uint32(min(a.Findings, math.MaxInt32)), FindingKinds: a.Kinds, //nolint:gosec // bounded
	}
	last, err := readStored(a.Newest)
	switch {
	case err != nil:
		return nil, err
	case last.record.GetKind() == writv1.RecordKind_RECORD_KIND_END:
		out.State = writv1.AgentState_AGENT_STATE_ENDED
	case r.Clock().Sub(a.LastTime) >= r.Silence:
		out.State = writv1.AgentState_AGENT_STATE_SILENT
	}
	beat, err := readStored(a.Heartbeat)
	if err != nil {
		return nil, err
	}
	if h, ok := beat.body.(*writv1.HeartbeatRecord); ok {
		out.Heartbeat = &writv1.AgentHeartbeat{
			Time: timestamppb.New(beat.time()), LagRecords: beat.record.GetIndex() - min(beat.record.GetIndex(), h.GetAcknowledged()),
			LedgerBytes: h.GetLedgerBytes(), LedgerMaxBytes: h.GetLedgerMaxBytes(),
		}
	}
	bundle, err := readStored(a.Bundle)
	if b, ok := bundle.body.(*writv1.BundleRecord); ok {
		out.BundleName, out.BundleDigest = b.GetName(), b.GetDigest()
	}
	return out, err
}

// readStored reads a record of the store's; the zero one is none.
func readStored(s store.Stored) (view, error) {
	if s.Seq == 0 {
		return view{}, nil
	}
	v := viewOf(recordOf(s))
	if v.err != nil {
		return v, fmt.Errorf("record of %s: %w", s.Origin, v.err)
	}
	return v, nil
}

// agentToken is the token of the page after an agent: its origin after a digest, so that
// nothing is made up of one that was cut or changed.
func agentToken(origin string) string {
	sum := sha256.Sum256([]byte("writ/agents/v1" + origin))
	return base64.RawURLEncoding.EncodeToString(append(sum[:tokenDigest], origin...))
}

// afterAgent reads a token; none is before the first agent.
func afterAgent(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) <= tokenDigest || agentToken(string(b[tokenDigest:])) != token {
		return "", fmt.Errorf("%w: page token is no token of a list of agents", ErrInvalid)
	}
	return string(b[tokenDigest:]), nil
}
