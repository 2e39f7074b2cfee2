// SPDX-License-Identifier: Apache-2.0

package leases

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Held returns every slice in a fixed order.
func (s *Shares) Held() []*writv1.HeldLease {
	out := make([]*writv1.HeldLease, 0, len(s.held))
	for _, id := range slices.Sorted(maps.Keys(s.held)) {
		h := s.held[id]
		if h.ask.GetSeq() == 0 {
			continue // it was never asked for
		}
		kept := &writv1.HeldLease{
			Budget: h.ask.GetBudget(), Key: h.ask.GetKey(), Dimension: h.ask.GetDimension(), Ask: h.ask, Open: h.open, Cap: h.cap, Lost: h.lost,
		}
		if !h.start.IsZero() {
			kept.WindowStart, kept.WindowEnd = timestamppb.New(h.start), timestamppb.New(h.end)
		}
		out = append(out, kept)
	}
	return out
}

// Restore takes back one slice of [Shares.Held], before every other event. It cannot be
// drawn on.
func (s *Shares) Restore(kept *writv1.HeldLease) {
	h := s.hold(kept.GetAsk())
	if h == nil {
		return
	}
	h.ask, h.terms, h.open, h.cap, h.lost = kept.GetAsk(), kept.GetAsk(), kept.GetOpen(), kept.GetCap(), kept.GetLost()
	if kept.GetWindowStart() != nil {
		h.start, h.end = kept.GetWindowStart().AsTime(), kept.GetWindowEnd().AsTime()
	}
}

// Forget drops slices of windows that have ended long before the time now.
func (s *Shares) Forget(now time.Time) {
	for id, h := range s.held {
		if !h.start.IsZero() && h.end.Add(keptFor).Before(now) && !h.live(now) {
			delete(s.held, id)
			delete(s.restless, id)
		}
	}
}

// Dump writes what is folded as lines in a fixed order, equal for equal states.
func (s *Shares) Dump() string {
	var lines strings.Builder
	for _, id := range slices.Sorted(maps.Keys(s.held)) {
		if h := s.held[id]; h.ask.GetSeq() > 0 {
			fmt.Fprintf(&lines, "lease %s %d %v %d %d %d\n", id, h.ask.GetSeq(), h.open, h.start.UnixNano(), h.cap, h.lost)
		}
	}
	return lines.String()
}
