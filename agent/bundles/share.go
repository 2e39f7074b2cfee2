// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/budgets"
)

// whole gives who plays a bundle the whole of the budgets that agents share: it stands for
// all of them. The balances are those of the keys.
func whole(keys []budgets.Key, balances []*writv1.Balance) {
	for i := range keys {
		if terms := keys[i].Terms; terms != nil {
			end := keys[i].Window.End(balances[i].GetWindowStart().AsTime())
			balances[i].Lease = &writv1.LeaseFact{Cap: terms.GetLimit(), WindowEnd: timestamppb.New(end), Exhausted: true}
		}
	}
}
