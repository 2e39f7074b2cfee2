// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// maxWatchers is how many watch at a time where Options say nothing.
	maxWatchers = 64
	// maxExports is how many export at a time: each reads whole ledgers, twice.
	maxExports = 2
	// maxPatience is how long one may take nothing, there.
	maxPatience = 30 * time.Second
)

// Options say what a Server reads.
type Options struct {
	// Store is what it serves.
	Store Source
	// Access says who may read what. Default: nobody over TLS.
	Access Access
	// Log takes the causes of what a caller is told only that it failed. Default: none.
	Log *slog.Logger
	// Watchers is how many watch at a time; more are refused. Default: 64.
	Watchers int
	// Patience is how long a watcher may take nothing before its watch is ended.
	// Default: 30 s.
	Patience time.Duration
}

// Server serves records, to each caller those that [Access] gives it.
type Server struct {
	writv1.UnimplementedRecordServiceServer

	reader   Reader
	access   Access
	log      *slog.Logger
	patience time.Duration
	watchers places
	exports  places
}

// places are as many as may be taken at a time.
type places struct {
	taken chan struct{} // has one for each that is taken
	of    string
}

func newPlaces(n int, of string) places { return places{taken: make(chan struct{}, n), of: of} }

// enter takes a place until leave is called.
func (p places) enter() (leave func(), err error) {
	select {
	case p.taken <- struct{}{}:
		return func() { <-p.taken }, nil
	default:
		return nil, fmt.Errorf("%w %s", ErrTooMany, p.of)
	}
}

// NewServer returns the service over a store.
func NewServer(o Options) *Server {
	if o.Watchers <= 0 {
		o.Watchers = maxWatchers
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Patience <= 0 {
		o.Patience = maxPatience
	}
	return &Server{
		reader: FromStore(o.Store), access: o.Access, log: o.Log, patience: o.Patience,
		watchers: newPlaces(o.Watchers, "watchers"), exports: newPlaces(maxExports, "exports at a time"),
	}
}

// ListRecords lists records, newest first.
func (s *Server) ListRecords(ctx context.Context, r *writv1.ListRecordsRequest) (*writv1.ListRecordsResponse, error) {
	filter, err := s.filter(ctx, r.GetFilter())
	if err != nil {
		return nil, s.status(ctx, err)
	}
	out, err := s.reader.List(ctx, &writv1.ListRecordsRequest{Filter: filter, PageSize: r.GetPageSize(), PageToken: r.GetPageToken()})
	return out, s.status(ctx, err)
}

// tenants returns the tenants whose records the caller may read. A caller who may read
// none is told so, and the log why.
func (s *Server) tenants(ctx context.Context) ([]string, error) {
	who, err := s.access.may(ctx, writv1.ReaderRole_READER_ROLE_AUDITOR)
	if err != nil {
		s.log.WarnContext(ctx, "a reader is refused", "error", err)
		return nil, refused(writv1.ReaderRole_READER_ROLE_AUDITOR)
	}
	return who.tenants, nil
}

// filter returns a caller's filter with no more than the caller may read.
func (s *Server) filter(ctx context.Context, filter *writv1.RecordFilter) (*writv1.RecordFilter, error) {
	tenants, err := s.tenants(ctx)
	if err != nil {
		return nil, err
	}
	return narrow(filter, tenants)
}

// GetRecord returns everything recorded of a decision that the caller may read. A
// decision of another's is answered like one that there is not.
func (s *Server) GetRecord(ctx context.Context, r *writv1.GetRecordRequest) (*writv1.GetRecordResponse, error) {
	tenants, err := s.tenants(ctx)
	if err != nil {
		return nil, s.status(ctx, err)
	}
	records, err := s.reader.Get(ctx, r.GetDecisionId())
	if err != nil {
		return nil, s.status(ctx, err)
	}
	if records = readable(records, tenants); len(records) == 0 {
		return nil, s.status(ctx, ErrNotFound)
	}
	return &writv1.GetRecordResponse{Records: records}, nil
}

// errSlow ends the watch of one who takes nothing.
var errSlow = errors.New("nothing was taken for too long: list what was missed, and watch again")

// WatchRecords sends records as they are stored. The headers are sent when the watcher
// has taken its place: what is stored after them will be sent. It ends when the stream's
// context does, with the cause where that is a status.
func (s *Server) WatchRecords(r *writv1.WatchRecordsRequest, out grpc.ServerStreamingServer[writv1.WatchRecordsResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	filter, err := s.filter(ctx, r.GetFilter())
	if err != nil {
		return s.status(ctx, err)
	}
	leave, err := s.watchers.enter()
	if err != nil {
		return s.status(ctx, err)
	}
	defer leave()
	records, err := s.reader.Watch(ctx, filter)
	if err != nil {
		return s.status(ctx, err)
	}
	if err := out.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	w := newWatcher(records, func(record *writv1.StoredRecord) error {
		return out.Send(&writv1.WatchRecordsResponse{Record: record})
	})
	return s.status(ctx, s.attend(ctx, w))
}

// ExportRecords sends records with what proves them.
func (s *Server) ExportRecords(r *writv1.ExportRecordsRequest, out grpc.ServerStreamingServer[writv1.ExportRecordsResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	filter, err := s.filter(ctx, r.GetFilter())
	if err != nil {
		return s.status(ctx, err)
	}
	leave, err := s.exports.enter()
	if err != nil {
		return s.status(ctx, err)
	}
	defer leave()
	request := &writv1.ExportRecordsRequest{Filter: filter, OlderHeads: r.GetOlderHeads()}
	return s.status(ctx, s.attend(ctx, newWatcher(s.reader.Export(ctx, request), out.Send)))
}

// watcher sends to one who watches, or exports.
type watcher struct {
	sends atomic.Uint64 // begun and ended: odd while one is under way
	done  chan error
}

// newWatcher begins to send what a sequence gives, until an error or its end. A send that
// is under way when the call ends, ends with it.
func newWatcher[T any](items iter.Seq2[T, error], send func(T) error) *watcher {
	w := &watcher{done: make(chan error, 1)}
	go func() {
		for item, err := range items {
			if err == nil {
				w.sends.Add(1)
				err = send(item)
				w.sends.Add(1)
			}
			if err != nil {
				w.done <- err
				return
			}
		}
		w.done <- nil
	}()
	return w
}

// attend waits for the end of a watch: its own, its context's, or that of a send which
// was already under way a whole patience ago.
func (s *Server) attend(ctx context.Context, w *watcher) error {
	tick := time.NewTicker(s.patience)
	defer tick.Stop()
	for last := uint64(0); ; {
		select {
		case err := <-w.done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			now := w.sends.Load()
			if now == last && now%2 == 1 {
				return errSlow
			}
			last = now
		}
	}
}

// status is an error as a caller gets it.
func (s *Server) status(ctx context.Context, err error) error { return statusOf(ctx, s.log, err) }

// statusOf is an error as a caller gets it. What it may not know is logged.
func statusOf(ctx context.Context, log *slog.Logger, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrInvalid):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrNoAgent):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, ErrTooMany):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, errSlow):
		return status.Error(codes.ResourceExhausted, err.Error())
	case ownStatus(err): // of a send, or of a server that stops
		return err
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	default:
		log.ErrorContext(ctx, "the store cannot be read", "error", err)
		return status.Error(codes.Internal, "the collector cannot read its store")
	}
}

func ownStatus(err error) bool {
	_, ok := status.FromError(err)
	return ok
}
