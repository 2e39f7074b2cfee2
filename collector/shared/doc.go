// SPDX-License-Identifier: Apache-2.0

// Package shared holds what agents share through their collector: which calls operators
// have stopped, and budgets.
//
// [Leases] gives agents slices of shared budgets. It promises that what it gives is kept
// before it is sent, and that it never gives more than there is (state/leases).
//
// [Stops] serves writ.v1.StopService. It promises that an order which it has answered is
// kept, and that every agent that is connected, or connects later, is told of it. It
// cannot make an agent stop anything by itself, nor go on: each agent holds an order's
// signature against its own operators, and orders commute. A collector that keeps an
// order back does harm only as one that is down does.
package shared
