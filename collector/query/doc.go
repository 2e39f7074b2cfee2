// SPDX-License-Identifier: Apache-2.0

// Package query reads records, for RecordService and for "writ records", and prints
// them.
//
// A [Reader] lists records newest first, gets what belongs to a decision, and watches
// for new ones. It has three kinds with one behaviour: over a collector's store, over a
// collector's service, and over an agent's ledger directory; the same filter finds the
// same records in each. [NewServer] serves the first as writ.v1.RecordService.
//
// It promises that paging gives no record twice while others arrive; that a page is
// bounded in records and bytes; that a watcher who reads slowly costs the place of one,
// for what it has not read stays in the store; that nothing is read from a ledger
// directory but what a signed head vouches for.
//
// Records hold what planners and users wrote. What is printed cannot disturb a terminal
// or pass for something else: control characters, bidirectional text, invisible
// characters and bytes that are no text are escaped, and a value with a blank in it is
// quoted where columns stand side by side.
//
// It does not verify a store or a ledger: "writ verify" does. It checks no permission:
// whoever reaches the collector's listener reads all of its records.
//
//	reader, err := query.FromLedger("/var/lib/writ/ledger")
//	page, err := reader.List(ctx, &writv1.ListRecordsRequest{Filter: &writv1.RecordFilter{Tenant: "acme"}})
//	err = query.WriteTable(os.Stdout, page.GetRecords())
package query
