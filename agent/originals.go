// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// keep seals the sensitive arguments of a call, or the sensitive values of its result,
// whose tool asks to have them kept, to the key of its tenant and of the day that a time is
// in. It returns what is sealed, nil where nothing was asked, and the values with the
// commitments that belong to it. A call goes on where they cannot be sealed: the record
// says why, and they are kept out of it all the same.
func (ad *Admission) keep(values []ledger.Sensitive, at time.Time) (*writv1.SealedOriginals, []ledger.Sensitive, error) {
	if len(values) == 0 || ad.result.Tool.Options.GetOriginals() != writv1.Originals_ORIGINALS_SEALED {
		return nil, values, nil
	}
	sealed := &writv1.SealedOriginals{Day: string(originals.DayOf(at)), Gap: writv1.OriginalsGap_ORIGINALS_GAP_NO_KEY}
	if sealer := ad.agent.options.Originals; sealer != nil {
		var err error
		sealed, values, err = sealer.Seal(ad.request.Principal.GetTenant(), ad.id[:], at, values)
		if err != nil {
			return nil, nil, err
		}
	}
	ad.agent.options.Metrics.original(sealed.GetGap())
	return sealed, values, nil
}
