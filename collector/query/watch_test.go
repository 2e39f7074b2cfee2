// SPDX-License-Identifier: Apache-2.0

package query_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestAWatcherGetsEveryRecordFromItsPlaceOn(t *testing.T) {
	t.Parallel()
	for who := range newDesk(t).readers(t) {
		t.Run("of "+who, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.write(t, aDay()...)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			watched, err := d.readers(t)[who].Watch(ctx, &writv1.RecordFilter{Tool: "books.refund"})
			if err != nil {
				t.Fatal(err)
			}
			written := make(chan struct{})
			go func() {
				defer close(written)
				for range 5 {
					d.write(t, decision(20, "acme", "mail.send", "x", "", writv1.Verdict_VERDICT_DENY), outcome(2, "acme"), outcome(20, "acme"))
				}
			}()
			got := []uint64{}
			for record, err := range watched {
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, recordIn(t, record).GetIndex()); len(got) == 5 {
					break
				}
			}
			<-written
			if diff := cmp.Diff([]uint64{13, 16, 19, 22, 25}, got); diff != "" {
				t.Errorf("watched (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	for who, reader := range d.readers(t) {
		ctx, cancel := context.WithCancel(t.Context())
		watched, err := reader.Watch(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		n := 0
		for record, err := range watched {
			if n++; record != nil || err == nil {
				t.Errorf("%s: %v, %v after the end", who, record, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d errors", who, n)
		}
	}
}

func TestAnEmptyStoreIsWatchedFromItsFirstRecord(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	watched, err := query.FromStore(d.store).Watch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, aDay()[:2]...)
	got := []uint64{}
	for record, err := range watched {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, recordIn(t, record).GetIndex()); len(got) == 2 {
			break
		}
	}
	if diff := cmp.Diff([]uint64{0, 1}, got); diff != "" {
		t.Errorf("watched (-want +got):\n%s", diff)
	}
}

// late is a store into which something is stored right after each of the first looks.
type late struct {
	*store.Store
	looks int
	write func()
}

func (l *late) List(ctx context.Context, sel store.Selection) ([]store.Stored, error) {
	rows, err := l.Store.List(ctx, sel)
	if sel.Forward {
		return rows, err
	}
	if l.looks++; l.looks > 1 && l.looks < 5 {
		l.write()
	}
	return rows, err
}

func TestWhatIsStoredDuringALookIsSeenInTheNext(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	source := &late{Store: d.store, write: func() {
		d.write(t, decision(20, "acme", "mail.send", "x", "", writv1.Verdict_VERDICT_DENY), outcome(2, "acme"), outcome(20, "acme"))
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	watched, err := query.FromStore(source).Watch(ctx, &writv1.RecordFilter{Tool: "books.refund"})
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, aDay()[6])
	got := []uint64{}
	for record, err := range watched {
		if err != nil {
			t.Fatalf("after %d: %v", got, err)
		}
		if got = append(got, recordIn(t, record).GetIndex()); len(got) == 3 {
			break
		}
	}
	if diff := cmp.Diff([]uint64{14, 17, 20}, got); diff != "" {
		t.Errorf("watched (-want +got):\n%s", diff)
	}
}

// places tells from where on watchers look.
type places struct {
	*store.Store
	after chan int64
}

func (p *places) List(ctx context.Context, sel store.Selection) ([]store.Stored, error) {
	if sel.Forward {
		p.after <- sel.After
	}
	return p.Store.List(ctx, sel)
}

func TestWhatDoesNotMatchIsLookedAtOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	source := &places{Store: d.store, after: make(chan int64, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	watched, err := query.FromStore(source).Watch(ctx, &writv1.RecordFilter{Tool: "nobody's"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range watched { // the end alone
		}
	}()
	for want := range int64(3) {
		d.write(t, outcome(1, "acme"))
		if got := <-source.after; got != want {
			t.Errorf("look %d began after %d", want, got)
		}
	}
	cancel()
	<-done
}

// counting counts the records that watchers take from a store.
type counting struct {
	*store.Store
	taken atomic.Int64
}

func (c *counting) List(ctx context.Context, sel store.Selection) ([]store.Stored, error) {
	rows, err := c.Store.List(ctx, sel)
	if sel.Forward {
		c.taken.Add(int64(len(rows)))
	}
	return rows, err
}

func TestASlowWatcherCostsNoMoreThanItsPlace(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	source := &counting{Store: d.store}
	ended := make(chan error, 1)
	client := serve(t, query.NewServer(query.Options{Store: source, Watchers: 1, Patience: 50 * time.Millisecond}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			err := handler(srv, ss)
			ended <- err
			return err
		}))
	slow, err := client.WatchRecords(t.Context(), &writv1.WatchRecordsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Header(); err != nil {
		t.Fatal(err)
	}
	large := ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_DECISION, Body: &writv1.DecisionRecord{Arguments: bytes.Repeat([]byte("x"), 60_000)}}
	for range 512 {
		d.write(t, large)
	}
	if err := <-ended; status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the slow watch ended with %v", err)
	}
	if n := source.taken.Load(); n > 300 {
		t.Errorf("%d records were taken from the store for a watcher who takes none", n)
	}
	for err == nil {
		_, err = slow.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "watch again") {
		t.Errorf("the slow watcher is told %v", err)
	}
}

func TestWatchersAreBounded(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	reader := query.FromService(serve(t, query.NewServer(query.Options{Store: d.store, Watchers: 1})))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := reader.Watch(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Watch(t.Context(), nil); !errors.Is(err, query.ErrTooMany) {
		t.Errorf("a second watcher: %v", err)
	}
}

// ending is a stream with a context of its own.
type ending struct {
	grpc.ServerStream
	ctx context.Context
}

func (e ending) Context() context.Context { return e.ctx }

func TestAWatchEndsWithItsServerHoweverSlowItsReaderIs(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	stopping, stop := context.WithCancelCause(t.Context())
	ended := make(chan error, 2)
	client := serve(t, query.NewServer(query.Options{Store: d.store}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			ctx, cancel := context.WithCancelCause(ss.Context())
			defer context.AfterFunc(stopping, func() { cancel(context.Cause(stopping)) })()
			err := handler(srv, ending{ss, ctx})
			ended <- err
			return err
		}))
	for range 2 {
		watch, err := client.WatchRecords(t.Context(), &writv1.WatchRecordsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Header(); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		d.write(t, ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_DECISION, Body: &writv1.DecisionRecord{Arguments: bytes.Repeat([]byte("x"), 60_000)}})
	}
	stop(status.Error(codes.Unavailable, "stopping"))
	for range 2 {
		if err := <-ended; status.Code(err) != codes.Unavailable {
			t.Errorf("ended with %v", err)
		}
	}
}

// broken is a store that cannot be read.
type broken struct{}

func (broken) List(context.Context, store.Selection) ([]store.Stored, error) {
	return nil, errors.New("secret path")
}

func (broken) Ledgers(context.Context) ([]store.Ledger, error) {
	return nil, errors.New("secret path")
}
func (broken) ByDecision(context.Context, []byte) ([]store.Stored, error) { return nil, io.EOF }
func (broken) Stored() <-chan struct{}                                    { return nil }

func TestWhyAStoreCannotBeReadIsLoggedAndNotTold(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	reader := query.FromService(serve(t, query.NewServer(query.Options{Store: broken{}, Log: slog.New(slog.NewTextHandler(&log, nil))})))
	_, listed := reader.List(t.Context(), &writv1.ListRecordsRequest{})
	_, watched := reader.Watch(t.Context(), nil)
	_, got := reader.Get(t.Context(), strings.Repeat("0", 32))
	for _, err := range []error{listed, watched, got} {
		var answer *query.ServiceError
		if !errors.As(err, &answer) || answer.Code != codes.Internal || strings.Contains(err.Error(), "secret") {
			t.Errorf("error = %v", err)
		}
	}
	if n := strings.Count(log.String(), "secret path"); n != 2 {
		t.Errorf("the cause is logged %d times:\n%s", n, log.String())
	}
}

// hostile is a service that answers what it likes.
type hostile struct {
	writv1.UnimplementedRecordServiceServer
}

func (hostile) ListRecords(context.Context, *writv1.ListRecordsRequest) (*writv1.ListRecordsResponse, error) {
	return nil, status.Error(codes.Internal, "\x1b]0;owned\a\nwrit: error: all is well\u202e")
}

func TestWhatAServiceAnswersCannotDisturbATerminal(t *testing.T) {
	t.Parallel()
	_, err := query.FromService(direct{}).List(t.Context(), &writv1.ListRecordsRequest{})
	if err == nil || strings.ContainsAny(err.Error(), "\x1b\a\n\u202e") {
		t.Errorf("error = %q", err)
	}
}

// direct is a client of the hostile service without a network.
type direct struct{ writv1.RecordServiceClient }

func (direct) ListRecords(ctx context.Context, r *writv1.ListRecordsRequest, _ ...grpc.CallOption) (*writv1.ListRecordsResponse, error) {
	return hostile{}.ListRecords(ctx, r)
}
