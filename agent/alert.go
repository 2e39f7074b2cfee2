// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// watch gives the alerts that a decision gives rise to, once it is recorded. An alert
// holds nothing up: it is recorded when the ledger comes to it.
func (a *Agent) watch(ad *Admission) {
	if a.drifts.Load() {
		a.raiseDrifts()
	}
	if ad.bundle == nil || ad.origin != writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE || !ad.position.Recorded {
		return
	}
	a.raise(ad, ad.bundle.Alerts(&ad.call, ad.result, ad.facts))
}

// calledOnceWritten returns what counts an allowed call, in the order of the records: so
// the state is what a fold of them gives.
func (a *Agent) calledOnceWritten(ad *Admission) func(error) {
	return func(err error) {
		if err != nil {
			return
		}
		a.state.mu.Lock()
		a.state.drift.Call(ad.time, ad.call.Envelope.GetToolCall().GetName())
		alarms := a.state.drift.Alarms()
		a.state.mu.Unlock()
		if len(alarms) == 0 {
			return
		}
		a.mu.Lock()
		a.drifted = append(a.drifted, alarms...)
		a.mu.Unlock()
		a.drifts.Store(true)
	}
}

// raiseDrifts records the alarms of drift. They are of all calls, and of no tenant.
func (a *Agent) raiseDrifts() {
	a.mu.Lock()
	alarms := a.drifted
	a.drifted = nil
	a.drifts.Store(false)
	a.mu.Unlock()
	for _, alarm := range alarms {
		record := &writv1.AlertRecord{
			Kind: writv1.AlertKind_ALERT_KIND_DRIFT, Time: timestamppb.New(alarm.Time), Drift: &writv1.Drift{
				Series: alarm.Series, Since: timestamppb.New(alarm.Since),
				ExpectedPerMinute: alarm.Expected, SeenPerMinute: alarm.Seen,
			},
		}
		a.record(ledger.Entry{}, "drift "+alarm.Series, record)
	}
}

// spentMoney returns what a call took of money: what its outcome says, and else the
// most that any budget reserved.
func spentMoney(reserved []*writv1.Reserve, outcome *writv1.OutcomeRecord) int64 {
	if outcome.GetState() == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED {
		return 0
	}
	for _, spent := range outcome.GetSpent() {
		if spent.GetDimension() == writv1.Dimension_DIMENSION_MONEY {
			return spent.GetAmount()
		}
	}
	var most int64
	for _, r := range reserved {
		if r.GetDimension() == writv1.Dimension_DIMENSION_MONEY {
			most = max(most, r.GetAmount())
		}
	}
	return most
}

// overrun counts what a call took beyond its worst case, and gives the alerts.
func (a *Agent) overrun(ad *Admission, overrun []*writv1.Reserve) {
	if len(overrun) == 0 {
		return
	}
	for _, r := range overrun {
		a.options.Metrics.overrun(r.GetBudget())
	}
	a.raise(ad, ad.bundle.Overruns(&ad.call, overrun, a.options.Clock()))
}

// raise records alerts that were not given before in their windows.
func (a *Agent) raise(ad *Admission, alerts []policy.Alert) {
	for _, alert := range alerts {
		record := alert.Record
		name := fmt.Sprintf("%d %d %q %q", record.GetKind(), record.GetPercent(), record.GetBudget(), record.GetKey())
		if !a.begin(name) {
			continue
		}
		if a.given(alert) {
			a.end(name)
			continue
		}
		a.record(ledger.Entry{Tenant: ad.request.Principal.GetTenant(), DecisionID: ad.id[:]}, name, record)
	}
}

// record has an alert recorded, and told once it is.
func (a *Agent) record(entry ledger.Entry, name string, record *writv1.AlertRecord) {
	entry.Kind, entry.BundleDigest, entry.Body = writv1.RecordKind_RECORD_KIND_ALERT, a.bundleDigest(), record
	entry.Written = func(err error) { a.raised(name, record, err) }
	if err := a.options.Ledger.AppendAsync(context.Background(), entry); err != nil {
		a.raised(name, record, err)
	}
}

// begin says whether an alert is not on its way already, and notes that it is.
func (a *Agent) begin(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.alerting[name] {
		return false
	}
	a.alerting[name] = true
	return true
}

func (a *Agent) end(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.alerting, name)
}

// given says whether an alert was given already in the window of its balance.
func (a *Agent) given(alert policy.Alert) bool {
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	record := alert.Record
	return a.state.budgets.Alerted(record.GetTime().AsTime(), alert.Key, record.GetKind(), record.GetPercent())
}

// raised hears what became of an alert's record. One that was not written is given
// with the next call that gives rise to it.
func (a *Agent) raised(name string, record *writv1.AlertRecord, err error) {
	if err == nil {
		a.state.alert(record)
	}
	a.end(name)
	if err != nil {
		a.options.Log.Error("an alert was not recorded", "kind", record.GetKind().String(), "budget", record.GetBudget(), "error", err)
		return
	}
	a.options.Metrics.alert(record)
	if a.options.Alert != nil {
		a.options.Alert(record)
	}
}

// alert applies an alert that is recorded.
func (s *State) alert(record *writv1.AlertRecord) {
	if record.GetBudget() == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budgets.Alert(record)
}
