// SPDX-License-Identifier: Apache-2.0

package export

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"github.com/writ-dev/writ/collector/query"
)

// columns are the columns of CSV and of Parquet.
var columns = []string{
	"time", "origin", "index", "epoch", "kind", "decision_id", "verdict", "state", "reason", "tool", "tenant",
	"workload", "user", "roles", "bundle_digest", "arguments", "result", "commitments", "body",
}

// table writes CSV as in RFC 4180, with a heading.
type table struct {
	out   *csv.Writer
	begun bool
}

func newCSV(w io.Writer) Writer {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	return &table{out: out}
}

// Write adds a line, and the heading before the first.
func (w *table) Write(origin string, record []byte) error {
	r, err := rowOf(origin, record)
	if err != nil {
		return err
	}
	if err := w.begin(); err != nil {
		return err
	}
	roles, err := list(r.Roles)
	if err != nil {
		return err
	}
	commitments, err := list(r.Commitments)
	if err != nil {
		return err
	}
	cells := []string{
		r.Time, cell(r.Origin), strconv.FormatUint(*r.Index, 10), strconv.FormatUint(r.Epoch, 10), r.Kind, r.DecisionID,
		r.Verdict, r.State, r.Reason, cell(r.Tool), cell(r.Tenant), cell(r.Workload), cell(r.User), roles,
		r.BundleDigest, value(r.Arguments), value(r.Result), commitments, value(r.Body),
	}
	return w.out.Write(cells)
}

func (w *table) begin() error {
	if w.begun {
		return nil
	}
	w.begun = true
	return w.out.Write(columns)
}

// Close writes what was held back; of no record at all, the heading.
func (w *table) Close() error {
	if err := w.begin(); err != nil {
		return err
	}
	w.out.Flush()
	return w.out.Error()
}

// cell is a text that no terminal and no spreadsheet takes for a command: what begins
// like a formula stands behind an apostrophe, and so does what begins with one.
func cell(text string) string {
	out := query.Printable(text)
	if strings.HasPrefix(out, "'") || out != "" && strings.ContainsRune("=+-@\t\r", rune(out[0])) {
		return "'" + out
	}
	return out
}

// value is a JSON value as a cell: one that begins like a formula is a number.
func value(text json.RawMessage) string {
	out := string(query.PrintableJSON(text))
	if strings.HasPrefix(out, "-") {
		return "'" + out
	}
	return out
}

// list is a list of texts as a JSON array; nothing of none.
func list(texts []string) (string, error) {
	if len(texts) == 0 {
		return "", nil
	}
	out, err := line(texts)
	return strings.TrimSuffix(string(out), "\n"), err
}
