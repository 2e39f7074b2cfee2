// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// keep seals the sensitive arguments of a call whose tool asks to have them kept, to the
// key of its tenant and day. It returns what is sealed, nil where nothing was asked, and
// the arguments with the commitments that belong to it. A call goes on where they cannot
// be sealed: the record says why, and they are kept out of it all the same.
func (ad *Admission) keep(arguments []ledger.Sensitive) (*writv1.SealedOriginals, []ledger.Sensitive, error) {
	if len(arguments) == 0 || ad.result.Tool.Options.GetOriginals() != writv1.Originals_ORIGINALS_SEALED {
		return nil, arguments, nil
	}
	sealed := &writv1.SealedOriginals{Day: string(originals.DayOf(ad.time)), Gap: writv1.OriginalsGap_ORIGINALS_GAP_NO_KEY}
	if sealer := ad.agent.options.Originals; sealer != nil {
		var err error
		sealed, arguments, err = sealer.Seal(ad.request.Principal.GetTenant(), ad.id[:], ad.time, arguments)
		if err != nil {
			return nil, nil, err
		}
	}
	ad.agent.options.Metrics.original(sealed.GetGap())
	return sealed, arguments, nil
}
