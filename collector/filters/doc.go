// SPDX-License-Identifier: Apache-2.0

// Package filters reads filters of records as AIP-160 has them
// (https://google.aip.dev/160), and says which records they select:
//
//	tool = "books.refund" AND verdict = DENY AND time > "2026-01-31T09:00:00Z"
//	check:"small" AND NOT (tenant = acme OR tenant = globex)
//
// A comparison is a field, an operator and a value. As AIP-160 wants it, OR binds tighter
// than AND, and two comparisons side by side are not joined by themselves. What an outcome
// is compared by is its decision's, but for its own time, kind and reason. A field that a
// record does not have is the empty text.
//
// It promises that what is wrong with a filter is said with its column; that reading takes
// bounded time (2,048 characters, 16 parentheses deep, 64 comparisons); and that a filter
// is a total function: a record is selected or not, and NOT turns it around. The store's
// index and [Filter.Match] select the same, for both are made of [Read].
//
// It gives nobody a right: who may read what is narrowed beside the filter.
//
//	f, err := filters.Parse(`tool = books.refund AND verdict = DENY`)
//	entry, err := filters.Read(origin, record)
//	selected := f.Match(entry, f.Recall(entry.Subject))
package filters
