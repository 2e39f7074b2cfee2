// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
)

// SnapshotFile is the name of a snapshot in the directory of the ledger that it is of.
const SnapshotFile = "state.snapshot"

// maxPart bounds one part of a snapshot: an admission with its outcome, which came out
// of two records.
const maxPart = 1 << 20

// ErrSnapshot says that a file is not a whole snapshot, or one of another ledger.
var ErrSnapshot = errors.New("not a snapshot of this ledger's state")

// SaveSnapshot writes the state into the directory, in place of the snapshot before, so
// that there is always a whole one. The state MUST be the fold of the first records of
// the ledger of that origin, whose tree has that root.
//
// The file is the parts of a [writv1.Snapshot], each after its length as a varint, and
// the SHA-256 over all of that.
func (s *State) SaveSnapshot(dir, origin string, root []byte) error {
	return s.saveSnapshot(ledger.OS{}, dir, origin, root)
}

// saveSnapshot gives the file its name once it is synced, and not before: the records
// that the snapshot before covers may be gone.
func (s *State) saveSnapshot(disk ledger.FS, dir, origin string, root []byte) error {
	name := filepath.Join(dir, SnapshotFile)
	if err := s.fillSnapshot(disk, name+".tmp", origin, root); err != nil {
		// What there is of it takes room that may be what is missing.
		return errors.Join(fmt.Errorf("write the snapshot: %w", err), disk.Remove(name+".tmp"))
	}
	if err := disk.Rename(name+".tmp", name); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	if err := disk.SyncDir(dir); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

func (s *State) fillSnapshot(disk ledger.FS, name, origin string, root []byte) error {
	file, err := disk.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	s.mu.Lock()
	err = s.writeSnapshot(file, origin, root)
	s.mu.Unlock()
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// writeSnapshot is called with mu held.
func (s *State) writeSnapshot(file io.Writer, origin string, root []byte) error {
	buffered, sum := bufio.NewWriter(file), sha256.New()
	w := io.MultiWriter(buffered, sum)
	held, newest := s.admissions.Held()
	balances := s.budgets.Held()
	known := s.sessions.Held()
	runs := s.workflows.Held()
	drifts := s.drift.Held()
	asked := s.approvals.Held()
	stopped := s.stops.Held()
	leased := s.leases.Held()
	parts := []*writv1.Snapshot{{Part: &writv1.Snapshot_Header{Header: &writv1.SnapshotHeader{
		Origin: origin, Size: s.next, Root: root, NewestDecision: timestamppb.New(newest),
		Admissions: uint64(len(held)), HeldBalances: uint64(len(balances)), Sessions: uint64(len(known)),
		Runs: uint64(len(runs)), Drifts: uint64(len(drifts)), Approvals: uint64(len(asked)), Stops: uint64(len(stopped)),
		Leases: uint64(len(leased)), BootId: s.boot,
	}}}}
	for _, h := range held {
		parts = append(parts, &writv1.Snapshot{Part: &writv1.Snapshot_Admission{Admission: heldAdmission(h)}})
	}
	for _, b := range balances {
		parts = append(parts, &writv1.Snapshot{Part: &writv1.Snapshot_HeldBalance{HeldBalance: b}})
	}
	for _, k := range known {
		parts = append(parts, &writv1.Snapshot{Part: &writv1.Snapshot_Session{Session: k}})
	}
	for _, d := range drifts {
		parts = append(parts, &writv1.Snapshot{Part: &writv1.Snapshot_Drift{Drift: d}})
	}
	for _, r := range runs {
		parts = append(parts, &writv1.Snapshot{Part: &writv1.Snapshot_Run{Run: r}})
	}
	for _, h := range asked {
		parts = append(parts, &writv1.Snapshot{Part: &writv1.Snapshot_Approval{Approval: h.Snapshot()}})
	}
	for _, h := range stopped {
		parts = append(parts, &writv1.Snapshot{Part: &writv1.Snapshot_Stop{Stop: h}})
	}
	for _, h := range leased {
		parts = append(parts, &writv1.Snapshot{Part: &writv1.Snapshot_Lease{Lease: h}})
	}
	for _, part := range parts {
		if _, err := protodelim.MarshalTo(w, part); err != nil {
			return err
		}
	}
	if _, err := buffered.Write(sum.Sum(nil)); err != nil {
		return err
	}
	return buffered.Flush()
}

func heldAdmission(h *admissions.Held) *writv1.HeldAdmission {
	out := &writv1.HeldAdmission{
		DecisionId: h.ID[:], Identity: h.Identity[:], Tenant: h.Tenant, Time: timestamppb.New(h.Time),
		Reserved: h.Reserved, Outcome: h.Outcome,
	}
	if h.Key != (admissions.Digest{}) {
		out.IdempotencyDigest = h.Key[:]
	}
	return out
}

// LoadSnapshot returns the state of the snapshot in the directory, or an empty one
// where there is none; limit is that of [NewState]. [New] refuses a state whose
// snapshot is not one of its ledger.
func LoadSnapshot(dir string, limit int) (*State, error) {
	s := NewState(limit)
	file, err := os.Open(filepath.Join(dir, SnapshotFile))
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the snapshot: %w", err)
	}
	defer file.Close() //nolint:errcheck // read only
	// Nothing of a file is read that is not whole: what is read of it is believed.
	if err := checkWhole(file); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", file.Name(), ErrSnapshot, err)
	}
	if err := s.readSnapshot(file); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", file.Name(), ErrSnapshot, err)
	}
	return s, nil
}

// checkWhole holds a file against the digest at its end, and goes back to its begin.
func checkWhole(file *os.File) error {
	about, err := file.Stat()
	if err != nil {
		return err
	}
	sum, want := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.CopyN(sum, file, about.Size()-sha256.Size); err != nil {
		return err
	}
	if _, err := io.ReadFull(file, want); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return errors.New("its digest is another")
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}

// checkLedger says whether the state's snapshot, if it began with one, is of the
// ledger, and the ledger at least as long as it was then.
func (s *State) checkLedger(l *ledger.Ledger) error {
	if s.origin == "" {
		return nil
	}
	if s.origin != l.Origin() {
		return fmt.Errorf("%w: it is of %s", ErrSnapshot, s.origin)
	}
	root, err := l.RootAt(s.size)
	if err != nil {
		return fmt.Errorf("%w: it covers %d records: %w", ErrSnapshot, s.size, err)
	}
	if !bytes.Equal(root, s.root) {
		return fmt.Errorf("%w: another tree of %d records", ErrSnapshot, s.size)
	}
	return nil
}

func (s *State) readSnapshot(file io.Reader) error {
	sum := sha256.New()
	in := &summed{in: bufio.NewReader(file), sum: sum}
	first, err := in.part()
	if err != nil {
		return err
	}
	header := first.GetHeader()
	if header == nil {
		return errors.New("it does not begin with its header")
	}
	for _, parts := range []struct {
		count   uint64
		restore func(*writv1.Snapshot) error
	}{
		{header.GetAdmissions(), s.restoreAdmission},
		{header.GetBalances() + header.GetHeldBalances(), s.restoreBalance},
		{header.GetSessions(), func(p *writv1.Snapshot) error { return s.sessions.Restore(p.GetSession()) }},
		{header.GetDrifts(), func(p *writv1.Snapshot) error { s.drift.Restore(p.GetDrift()); return nil }},
		{header.GetRuns(), func(p *writv1.Snapshot) error { s.workflows.Restore(p.GetRun()); return nil }},
		{header.GetApprovals(), func(p *writv1.Snapshot) error { return s.approvals.Restore(p.GetApproval()) }},
		{header.GetStops(), func(p *writv1.Snapshot) error { return s.stops.Restore(p.GetStop()) }},
		{header.GetLeases(), func(p *writv1.Snapshot) error { s.leases.Restore(p.GetLease()); return nil }},
	} {
		if err := in.each(parts.count, parts.restore); err != nil {
			return err
		}
	}
	s.admissions.Advance(header.GetNewestDecision().AsTime())
	s.boot = header.GetBootId()
	want := sum.Sum(nil)
	got, err := io.ReadAll(io.LimitReader(in.in, sha256.Size+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("its digest is another")
	}
	s.next, s.size = header.GetSize(), header.GetSize()
	s.origin, s.root = header.GetOrigin(), header.GetRoot()
	return nil
}

// heldBalance returns the balance of a part. Agents that knew but one kind of window
// wrote it in the form that facts have.
func heldBalance(part *writv1.Snapshot) *writv1.HeldBalance {
	if b := part.GetBalance(); b != nil {
		return &writv1.HeldBalance{
			Budget: b.GetBudget(), Key: b.GetKey(), Dimension: b.GetDimension(), WindowStart: b.GetWindowStart(), Taken: b.GetTaken(),
		}
	}
	return part.GetHeldBalance()
}

func (s *State) restoreBalance(part *writv1.Snapshot) error {
	held := heldBalance(part)
	if held == nil {
		return errors.New("a balance is missing")
	}
	s.budgets.Restore(held)
	return nil
}

func (s *State) restoreAdmission(part *writv1.Snapshot) error {
	kept := part.GetAdmission()
	if kept == nil {
		return errors.New("an admission is missing")
	}
	held := &admissions.Held{Outcome: kept.GetOutcome(), Claim: admissions.Claim{
		Tenant: kept.GetTenant(), Time: kept.GetTime().AsTime(), Reserved: kept.GetReserved(),
	}}
	copy(held.ID[:], kept.GetDecisionId())
	copy(held.Key[:], kept.GetIdempotencyDigest())
	copy(held.Identity[:], kept.GetIdentity())
	return s.admissions.Restore(held)
}

// summed reads parts, and digests what it reads.
type summed struct {
	in  *bufio.Reader
	sum io.Writer
}

func (r *summed) part() (*writv1.Snapshot, error) {
	out := &writv1.Snapshot{}
	if err := (protodelim.UnmarshalOptions{MaxSize: maxPart}).UnmarshalFrom(r, out); err != nil {
		return nil, err
	}
	return out, nil
}

// each reads so many parts, and has each restored.
func (r *summed) each(count uint64, restore func(*writv1.Snapshot) error) error {
	for range count {
		part, err := r.part()
		if err != nil {
			return err
		}
		if err := restore(part); err != nil {
			return err
		}
	}
	return nil
}

// Read digests what was read.
func (r *summed) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	_, _ = r.sum.Write(p[:n])
	return n, err
}

// ReadByte digests the byte that was read.
func (r *summed) ReadByte() (byte, error) {
	b, err := r.in.ReadByte()
	if err == nil {
		_, _ = r.sum.Write([]byte{b})
	}
	return b, err
}
