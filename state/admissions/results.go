// SPDX-License-Identifier: Apache-2.0

package admissions

import (
	"container/heap"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// results are the admissions whose results are kept. What they hold is a function
// of the order of events alone, so that a fold drops the same results again.
type results struct {
	byAge byAge
	// size is the sum of their results.
	size int
}

// keep adds the result of an admission that has ended, and drops the oldest ones
// while all are larger than KeptBytes.
func (r *results) keep(held *Held) {
	size := resultSize(held)
	if size == 0 {
		return
	}
	heap.Push(&r.byAge, held)
	for r.size += size; r.size > KeptBytes; {
		r.drop(r.byAge[0])
	}
}

// drop forgets the result of an admission, which may be nil, if it is kept.
// Whoever was given its outcome before has it whole.
func (r *results) drop(held *Held) {
	if held == nil || held.place == 0 {
		return
	}
	heap.Remove(&r.byAge, held.place-1)
	r.size -= resultSize(held)
	held.Outcome = withoutResult(held.Outcome)
}

// withoutResult returns what is kept of an outcome whose result is not.
func withoutResult(whole *writv1.OutcomeRecord) *writv1.OutcomeRecord {
	return &writv1.OutcomeRecord{
		State:         whole.GetState(),
		Reason:        whole.GetReason(),
		Duration:      whole.GetDuration(),
		ResultDigest:  whole.GetResultDigest(),
		RequestBytes:  whole.GetRequestBytes(),
		ResponseBytes: whole.GetResponseBytes(),
		HttpStatus:    whole.GetHttpStatus(),
		GivenBack:     whole.GetGivenBack(),
		Message:       whole.GetMessage(),
	}
}

// resultSize returns the bytes that dropping the result of an admission frees.
func resultSize(held *Held) int {
	size := len(held.Outcome.GetResult())
	for _, path := range held.Outcome.GetRedactions() {
		size += len(path)
	}
	return size
}

// byAge is a heap whose first is the oldest decision (container/heap).
type byAge []*Held

// Len is heap.Interface's.
func (b byAge) Len() int { return len(b) }

// Less is heap.Interface's.
func (b byAge) Less(i, j int) bool { return b[i].before(b[j]) }

// Swap is heap.Interface's.
func (b byAge) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].place, b[j].place = i+1, j+1
}

// Push is heap.Interface's.
func (b *byAge) Push(held any) {
	if h, ok := held.(*Held); ok {
		*b = append(*b, h)
		h.place = len(*b)
	}
}

// Pop is heap.Interface's.
func (b *byAge) Pop() any {
	last := len(*b) - 1
	held := (*b)[last]
	held.place = 0
	(*b)[last] = nil
	*b = (*b)[:last]
	return held
}
