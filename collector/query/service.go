// SPDX-License-Identifier: Apache-2.0

package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// callTimeout bounds one answer of a collector.
const callTimeout = time.Minute

// FromService returns the Reader over a collector's service. What the service sends is
// not verified but for what printing does: a record is held against the ledger that it
// is said to be of.
func FromService(client writv1.RecordServiceClient) Reader { return serviceReader{client} }

type serviceReader struct{ client writv1.RecordServiceClient }

// List returns a page of records, newest first.
func (r serviceReader) List(ctx context.Context, req *writv1.ListRecordsRequest) (*writv1.ListRecordsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := r.client.ListRecords(ctx, req)
	return out, answered(err)
}

// Get returns what is recorded of a decision.
func (r serviceReader) Get(ctx context.Context, id string) ([]*writv1.StoredRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := r.client.GetRecord(ctx, &writv1.GetRecordRequest{DecisionId: id})
	return out.GetRecords(), answered(err)
}

// Watch gives out the records that the collector stores from now on.
func (r serviceReader) Watch(ctx context.Context, filter *writv1.RecordFilter) (iter.Seq2[*writv1.StoredRecord, error], error) {
	ctx, cancel := context.WithCancel(ctx)
	in, err := r.client.WatchRecords(ctx, &writv1.WatchRecordsRequest{Filter: filter})
	if err != nil {
		cancel()
		return nil, answered(err)
	}
	// The headers say that the place is taken; without any the answer is an error.
	if md, err := in.Header(); err != nil || md == nil {
		_, err := in.Recv()
		cancel()
		return nil, answered(cmp.Or(err, io.ErrUnexpectedEOF))
	}
	return func(yield func(*writv1.StoredRecord, error) bool) {
		defer cancel()
		for {
			out, err := in.Recv()
			if err != nil {
				yield(nil, answered(err))
				return
			}
			if !yield(out.GetRecord(), nil) {
				return
			}
		}
	}, nil
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// ServiceError is what a collector answered that is none of this package's errors.
type ServiceError struct {
	Code    codes.Code
	Message string // as a terminal may show it
}

// Error says what was answered.
func (e *ServiceError) Error() string {
	return fmt.Sprintf("the collector answers %s: %s", e.Code, e.Message)
}

// answered is an error of the service as a Reader has it.
func answered(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	said := &ServiceError{Code: s.Code(), Message: printable(s.Message())}
	switch s.Code() {
	case codes.InvalidArgument:
		return fmt.Errorf("%w: %w", ErrInvalid, said)
	case codes.NotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, said)
	case codes.ResourceExhausted:
		return fmt.Errorf("%w: %w", ErrTooMany, said)
	default:
		return said
	}
}
