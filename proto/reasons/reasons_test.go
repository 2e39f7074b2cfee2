// SPDX-License-Identifier: Apache-2.0

package reasons_test

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestEveryReasonHasARow(t *testing.T) {
	t.Parallel()
	internal := reasons.On(writv1.Reason_REASON_AGENT_INTERNAL)
	for number, name := range writv1.Reason_name {
		reason := writv1.Reason(number)
		if reason == writv1.Reason_REASON_UNSPECIFIED || reason == writv1.Reason_REASON_AGENT_INTERNAL {
			continue
		}
		wire := reasons.On(reason)
		if wire == internal {
			t.Errorf("%s has no row of its own", name)
		}
		if (wire.GRPC == codes.OK) != (reason == writv1.Reason_REASON_GRANTED) {
			t.Errorf("%s: gRPC code %s", name, wire.GRPC)
		}
		if wire.HTTP < 200 || wire.HTTP > 599 {
			t.Errorf("%s: HTTP status %d", name, wire.HTTP)
		}
	}
}

func TestAnUnknownReasonIsInternal(t *testing.T) {
	t.Parallel()
	if got := reasons.On(writv1.Reason(9999)).GRPC; got != codes.Internal {
		t.Errorf("On(9999).GRPC = %s, want Internal", got)
	}
}

func TestOfFindsTheRefusalAndHidesTheRest(t *testing.T) {
	t.Parallel()
	cause := errors.New("secret detail")
	refusal := reasons.Wrap(cause, writv1.Reason_REASON_LEDGER_FULL, "", "the ledger is full")
	got := reasons.Of(fmt.Errorf("commit: %w", refusal))
	if got != refusal || !errors.Is(got, cause) {
		t.Errorf("Of lost the refusal or its cause: %v", got)
	}
	other := reasons.Of(cause)
	if other.Reason != writv1.Reason_REASON_AGENT_INTERNAL || other.Message == cause.Error() {
		t.Errorf("Of(%v) = %v", cause, other)
	}
	if reasons.Of(nil) != nil {
		t.Error("Of(nil) is not nil")
	}
}
