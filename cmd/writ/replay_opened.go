// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/agent/replay"
	"github.com/writ-dev/writ/ledger/originals"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// openerOrNone returns what opens originals; nil where no vault is named.
func (f *vaultFlags) openerOrNone(ctx context.Context) (*originals.Opener, error) {
	if f.dir == "" {
		return nil, nil
	}
	return f.opener(ctx)
}

// decideOpened decides a recorded call again, with its originals where they can be opened.
// Where their key was shredded it says so, unless the call can be decided without them.
func decideOpened(ctx context.Context, bundle *policy.Bundle, opener *originals.Opener, record *writv1.Record, body *writv1.DecisionRecord) (replay.Result, error) {
	if opener == nil || len(record.GetSealed().GetCiphertext()) == 0 {
		return replay.Decide(bundle, record, body)
	}
	values, err := opener.Open(ctx, record)
	instead := ""
	switch {
	case errors.Is(err, originals.ErrShredded):
		instead = "shredded"
	case errors.Is(err, originals.ErrBroken):
		instead = "broken"
	case errors.Is(err, originals.ErrNoKey):
	case err != nil:
		return replay.Result{}, fmt.Errorf("open the originals of record %d: %w", record.GetIndex(), err)
	default:
		at := make(map[string][]byte, len(values))
		for _, value := range values {
			at[value.Path] = value.JSON
		}
		if whole, opened, ok := replay.Opened(bundle, record, body, at); ok {
			record, body = whole, opened
		}
	}
	again, err := replay.Decide(bundle, record, body)
	if closed, ok := strings.CutPrefix(again.Why, "closed:"); ok && instead != "" {
		again.Why = instead + ":" + closed
	}
	return again, err
}
