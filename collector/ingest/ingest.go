// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/writ-dev/writ/collector/findings"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// MaxMessageBytes is how large a message of an agent may be: the credit that it is
// given, which is more than one bundle takes, and the framing of its records.
const MaxMessageBytes = stream.Credit + 1<<20

// maxOrigin and maxHead bound a hello, as ledger_service.proto does.
const (
	maxOrigin = 512
	maxHead   = 4096
)

// defaultPatience is how long an agent may take to say hello.
const defaultPatience = 10 * time.Second

// Store keeps what is taken. A *store.Store is one.
type Store interface {
	// Holding is what is held of a ledger.
	Holding(ctx context.Context, origin string) (stream.Holding, error)
	// Put stores what was accepted on top of a holding, durably.
	Put(ctx context.Context, from stream.Holding, a stream.Accepted, vkey string) error
}

// Orders are what operators have ordered. A *shared.Stops is one.
type Orders interface {
	// Orders returns the orders that hold, and a channel that is closed when there are
	// others.
	Orders() ([]*writv1.StopOrder, <-chan struct{})
}

// Leases gives slices of shared budgets. A *shared.Leases is one.
type Leases interface {
	// Ask answers what the agent of a ledger says of its slice; nil is no answer.
	Ask(ctx context.Context, origin string, ask *writv1.LeaseAsk) (*writv1.LeaseGrant, error)
}

// Options configures a [Server].
type Options struct {
	// Store keeps what is taken. It MUST be set.
	Store Store
	// Keys knows the agents. It MUST be set.
	Keys *Keys
	// Findings keeps what is wrong with ledgers. It MUST be set.
	Findings *findings.Keeper
	// Signer signs acknowledgements. It MUST be set.
	Signer note.Signer
	// Orders are what operators have ordered, for every agent; nil is nothing.
	Orders Orders
	// Leases gives slices of shared budgets; nil gives none.
	Leases Leases
	// Patience is how long an agent may take to say hello. Default: 10 s.
	Patience time.Duration
	// Metrics counts; nil counts nothing.
	Metrics *Metrics
	// Log hears of what failed. Nil is silent.
	Log *slog.Logger
}

// Server takes ledgers. It is safe for use by several goroutines.
type Server struct {
	writv1.UnimplementedLedgerServiceServer
	options Options

	mu sync.Mutex
	// streams has what ends the stream of each ledger; guarded by mu.
	streams map[string]*takeover
}

// takeover ends a stream, when another of the same ledger comes.
type takeover struct {
	end  context.CancelCauseFunc
	done chan struct{}
}

var errTakenOver = status.Error(codes.Aborted, "another stream of this ledger has begun")

// New returns a server.
func New(o Options) *Server {
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{options: o, streams: make(map[string]*takeover)}
}

// Sync takes one ledger, until the agent goes away.
func (s *Server) Sync(in grpc.BidiStreamingServer[writv1.SyncRequest, writv1.SyncResponse]) error {
	ctx, end := context.WithCancelCause(in.Context())
	defer end(nil)
	requests := receive(ctx, in, end)
	hello, err := s.hello(ctx, requests)
	if err != nil {
		return err
	}
	key, ok := s.options.Keys.Find(hello.GetOrigin())
	if !ok {
		s.options.Findings.Stranger(ctx, hello.GetOrigin(), hello.GetHead())
		return status.Errorf(codes.PermissionDenied,
			"the collector does not know the ledger %q: add the agent's log.vkey to its agents or agents_file", hello.GetOrigin())
	}
	defer s.claim(hello.GetOrigin(), end)()
	s.options.Metrics.begin()
	defer s.options.Metrics.end()
	intake := &intake{Server: s, stream: in, key: key, origin: hello.GetOrigin()}
	if err := intake.begin(ctx, hello); err != nil {
		return err
	}
	return intake.serve(ctx, requests)
}

// Connected is how many agents' streams there are.
func (s *Server) Connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// receive reads the stream into a channel, so that a silent agent can be left. The
// channel is closed when the agent has said all; end is called with what broke it.
func receive(ctx context.Context, in grpc.BidiStreamingServer[writv1.SyncRequest, writv1.SyncResponse], end context.CancelCauseFunc) <-chan *writv1.SyncRequest {
	requests := make(chan *writv1.SyncRequest)
	go func() {
		defer close(requests)
		for {
			request, err := in.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				end(err)
				return
			}
			select {
			case requests <- request:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests
}

// errChanged says that what is waited for beside requests has come.
var errChanged = errors.New("there is something else")

// next is the next request, nil when there are no more, errChanged when changed is
// closed, or why the stream has ended.
func next(ctx context.Context, requests <-chan *writv1.SyncRequest, changed <-chan struct{}) (*writv1.SyncRequest, error) {
	select {
	case <-changed:
		return nil, errChanged
	case request, ok := <-requests:
		if !ok && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return request, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *Server) hello(ctx context.Context, requests <-chan *writv1.SyncRequest) (*writv1.Hello, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.options.Patience, status.Error(codes.DeadlineExceeded, "no hello in time"))
	defer cancel()
	request, err := next(ctx, requests, nil)
	if err != nil {
		return nil, err
	}
	hello := request.GetHello()
	if hello == nil || hello.GetOrigin() == "" || len(hello.GetOrigin()) > maxOrigin || len(hello.GetHead()) > maxHead {
		return nil, status.Errorf(codes.InvalidArgument, "the first message is not a hello with an origin and a head of at most %d bytes", maxHead)
	}
	return hello, nil
}

// claim makes this the one stream of the ledger: it ends the one before and waits until
// that stores nothing any more. The result gives the claim back.
func (s *Server) claim(origin string, end context.CancelCauseFunc) (release func()) {
	mine := &takeover{end: end, done: make(chan struct{})}
	s.mu.Lock()
	before := s.streams[origin]
	s.streams[origin] = mine
	s.mu.Unlock()
	if before != nil {
		before.end(errTakenOver)
		<-before.done
	}
	return func() {
		s.mu.Lock()
		if s.streams[origin] == mine {
			delete(s.streams, origin)
		}
		s.mu.Unlock()
		close(mine.done)
	}
}
