// SPDX-License-Identifier: Apache-2.0

// Package export writes records in the formats that other programs read: NDJSON, CSV,
// Parquet, OCSF and the shape of CloudTrail's log files.
//
// It promises that what it writes says nothing that "writ records show" does not show;
// that it is a function of the records and nothing else, so that whoever has a proof
// bundle makes the same bytes again; that it keeps no more in memory than one row group
// of Parquet and the newest decisions, which outcomes belong to; and that a text format
// cannot disturb a terminal, nor a cell of CSV a spreadsheet.
//
// It does not read or prove records: collector/query does the one and ledger/proofs the
// other. OCSF and CloudTrail's shape are projections, which lose what has no place in
// them but the whole body of a record, that NDJSON, CSV and Parquet hold.
//
//	w, err := export.New("ndjson", file)
//	err = w.Write(origin, record)
//	err = w.Close()
package export
