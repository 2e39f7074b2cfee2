// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/collector/filters"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// What a Reader fails with beside what its source does.
var (
	// ErrInvalid says that the request is not one that can be answered: a filter
	// against its rules, or a page token that was not given out for this filter.
	ErrInvalid = errors.New("not a valid request")
	// ErrNotFound says that nothing is recorded of the decision.
	ErrNotFound = errors.New("no such decision is recorded")
	// ErrTooMany says that more watch, or more was recorded of one decision, than is
	// answered.
	ErrTooMany = errors.New("too many")
)

// Bounds of an answer.
const (
	// DefaultPage is how many records a page has where nobody says.
	DefaultPage = 100
	// pageBytes bounds a page: a gRPC client takes 4 MiB, if it is not told otherwise.
	pageBytes = 3 << 20
	// recordExtra is what a record costs in a page beside its bytes: origin, time, tags.
	recordExtra = 600
)

// Reader reads records. Its methods may be called by several goroutines.
type Reader interface {
	// List returns a page of records, newest first.
	List(ctx context.Context, r *writv1.ListRecordsRequest) (*writv1.ListRecordsResponse, error)
	// Get returns what is recorded of a decision, in the order of its ledger;
	// ErrNotFound where there is nothing. Where two ledgers speak of one id, both are
	// returned: ids are the agents' word.
	Get(ctx context.Context, decisionID string) ([]*writv1.StoredRecord, error)
	// Watch returns when it has taken its place: every record that is stored after that,
	// and none before, is given out, until ctx ends (then the last error is ctx's) or
	// the loop does. The sequence MUST be ranged over once, or ctx ended.
	Watch(ctx context.Context, filter *writv1.RecordFilter) (iter.Seq2[*writv1.StoredRecord, error], error)
	// Export gives records out with what proves them: a ledger, those of its records that
	// the filter selects, in its order, the next ledger. It ends with an error, or when
	// everything was given out that was there when it began.
	Export(ctx context.Context, r *writv1.ExportRecordsRequest) Exported
}

var decisionID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// check holds a request against the rules of its message.
func check(m proto.Message) error {
	if err := protovalidate.Validate(m); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// checkFilter says what is wrong with a filter beyond the rules of its message.
func checkFilter(f *writv1.RecordFilter) error {
	if _, err := filters.Parse(f.GetExpression()); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	switch start, end := f.GetStartTime(), f.GetEndTime(); {
	case start != nil && !start.IsValid(), end != nil && !end.IsValid():
		return fmt.Errorf("%w: a time that is none", ErrInvalid)
	default:
		return nil
	}
}

// pageSize is how many records a request asks for.
func pageSize(r *writv1.ListRecordsRequest) int {
	if r.GetPageSize() == 0 {
		return DefaultPage
	}
	return int(r.GetPageSize())
}

// page collects records up to a number and a size.
type page struct {
	records []*writv1.StoredRecord
	size    int
	bytes   int
}

// add takes a record, or says that the page is full without it. The first always fits.
func (p *page) add(r *writv1.StoredRecord) bool {
	n := len(r.GetRecord()) + recordExtra
	if len(p.records) >= p.size || len(p.records) > 0 && p.bytes+n > pageBytes {
		return false
	}
	p.records, p.bytes = append(p.records, r), p.bytes+n
	return true
}
