// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/leases"
)

// intake is one stream of one ledger. It is for one goroutine.
type intake struct {
	*Server
	stream   grpc.BidiStreamingServer[writv1.SyncRequest, writv1.SyncResponse]
	origin   string
	key      Key
	held     stream.Holding
	receiver *stream.Receiver
	// told are the orders that the agent was told of.
	told map[*writv1.StopOrder]bool
}

// begin answers the hello with what is held.
func (i *intake) begin(ctx context.Context, hello *writv1.Hello) error {
	var err error
	if i.held, err = i.options.Store.Holding(ctx, i.origin); err != nil {
		return i.failed(ctx, "read what is held", err)
	}
	i.receiver = stream.NewReceiver(i.held, i.key.Verifier)
	welcome, err := i.receiver.Hello(hello)
	if err != nil {
		return i.refuse(ctx, err)
	}
	return i.stream.Send(&writv1.SyncResponse{Message: &writv1.SyncResponse_Welcome{Welcome: welcome}})
}

// serve takes bundles, and tells orders as they come, until the stream ends.
func (i *intake) serve(ctx context.Context, requests <-chan *writv1.SyncRequest) error {
	for {
		changed, err := i.tell()
		if err != nil {
			return err
		}
		request, err := next(ctx, requests, changed)
		switch {
		case errors.Is(err, errChanged):
			continue
		case err != nil || request == nil:
			return err
		}
		if err := i.take(ctx, request); err != nil {
			return err
		}
	}
}

// tell sends the orders that the agent was not told of, and returns a channel that is
// closed when there are others.
func (i *intake) tell() (<-chan struct{}, error) {
	if i.options.Orders == nil {
		return nil, nil
	}
	orders, changed := i.options.Orders.Orders()
	told := make(map[*writv1.StopOrder]bool, len(orders))
	for _, order := range orders {
		told[order] = true
		if i.told[order] {
			continue
		}
		if err := i.stream.Send(&writv1.SyncResponse{Message: &writv1.SyncResponse_StopOrder{StopOrder: order}}); err != nil {
			return nil, err
		}
	}
	i.told = told
	return changed, nil
}

// take verifies, stores and acknowledges one bundle.
func (i *intake) take(ctx context.Context, request *writv1.SyncRequest) error {
	bundle := request.GetBundle()
	if bundle == nil {
		return status.Error(codes.InvalidArgument, "after the hello come bundles")
	}
	size := uint64(len(bundle.GetHead()))
	for _, record := range bundle.GetRecords() {
		size += uint64(len(record))
	}
	accepted, err := i.receiver.Feed(bundle)
	if err != nil {
		return i.refuse(ctx, err)
	}
	i.options.Findings.Taking(ctx, i.held, accepted)
	switch err := i.options.Store.Put(ctx, i.held, accepted, i.key.Text); {
	case errors.Is(err, store.ErrConflict):
		return status.Error(codes.Aborted, "the ledger was moved by another stream: connect again")
	case errors.Is(err, store.ErrKey):
		return i.refuse(ctx, &stream.Finding{Kind: stream.UnknownKey, Detail: "the ledger is held under another key", Head: bundle.GetHead(), Err: err})
	case err != nil:
		return i.failed(ctx, "store a bundle", err)
	}
	i.options.Findings.Taken(ctx, accepted)
	i.held = accepted.Holding
	i.options.Metrics.stored(len(accepted.Records), size)
	if err := i.grant(ctx, accepted.Decoded); err != nil {
		return err
	}
	return i.acknowledge(ctx, size)
}

// grant answers the asks for slices among records that are stored. An ask that cannot be
// answered now is made again by the agent.
func (i *intake) grant(ctx context.Context, records []*writv1.Record) error {
	if i.options.Leases == nil {
		return nil
	}
	for _, record := range records {
		if record.GetKind() != writv1.RecordKind_RECORD_KIND_LEASE {
			continue
		}
		var body writv1.LeaseRecord
		if err := canonical.Unmarshal(record.GetBody(), &body); err != nil || body.GetAsk() == nil {
			continue
		}
		grant, err := i.options.Leases.Ask(ctx, i.origin, body.GetAsk())
		if err == nil && grant != nil {
			grant, err = leases.Sign(i.options.Signer, i.origin, grant)
		}
		if err != nil {
			i.options.Log.ErrorContext(ctx, "an ask for a slice of a budget was not answered", "origin", i.origin, "index", record.GetIndex(), "error", err)
			continue
		}
		if grant == nil {
			continue
		}
		if err := i.stream.Send(&writv1.SyncResponse{Message: &writv1.SyncResponse_LeaseGrant{LeaseGrant: grant}}); err != nil {
			return err
		}
	}
	return nil
}

// acknowledge signs for what is held, and gives the credit back that it took.
func (i *intake) acknowledge(ctx context.Context, credit uint64) error {
	head := ledger.Head{Origin: i.origin, Size: i.held.Size, Root: [32]byte(i.held.Root)}
	receipt, err := ledger.SignHead(head, i.options.Signer)
	if err != nil {
		return i.failed(ctx, "sign an acknowledgement", err)
	}
	return i.stream.Send(&writv1.SyncResponse{Message: &writv1.SyncResponse_Acknowledgement{
		Acknowledgement: &writv1.Acknowledgement{Receipt: receipt, CreditBytes: credit},
	}})
}

// failed ends the stream for a reason that is the collector's own, which the agent is
// not told.
func (i *intake) failed(ctx context.Context, doing string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	i.options.Log.ErrorContext(ctx, "a ledger could not be taken", "origin", i.origin, "doing", doing, "error", err)
	return status.Error(codes.Unavailable, "the collector cannot store records now; its log says why")
}

// codeOf is what an agent is answered to a finding. All of them are for a human to look
// into; agents try again, at their longest interval.
var codeOf = map[stream.FindingKind]codes.Code{
	stream.Malformed:  codes.InvalidArgument,
	stream.Foreign:    codes.PermissionDenied,
	stream.UnknownKey: codes.PermissionDenied,
	stream.Gap:        codes.FailedPrecondition,
	stream.Rollback:   codes.FailedPrecondition,
	stream.Fork:       codes.FailedPrecondition,
}

// refuse keeps what is wrong with a ledger, and ends the stream with it. Bytes that say
// nothing about a ledger are counted, and not kept.
func (i *intake) refuse(ctx context.Context, err error) error {
	var found *stream.Finding
	if !errors.As(err, &found) {
		return i.failed(ctx, "verify", err)
	}
	if found.Kind == stream.Malformed {
		i.options.Log.WarnContext(ctx, "a ledger is not taken", "origin", i.origin, "detail", found.Error())
		i.options.Findings.Count(found.Kind.String())
	} else {
		i.options.Findings.Keep(ctx, store.Finding{
			Origin: i.origin, Kind: found.Kind.String(), Detail: found.Detail,
			HeldSize: i.held.Size, HeldRoot: i.held.Root, Head: found.Head,
		})
	}
	return status.Errorf(codeOf[found.Kind], "%s: %s", found.Kind, found.Detail)
}
