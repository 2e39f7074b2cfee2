// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// timeForm is the form of times in a table and in show: fixed width, UTC.
const timeForm = "2006-01-02T15:04:05.000Z"

var columns = []string{"TIME", "KIND", "RESULT", "REASON", "TOOL", "TENANT", "PRINCIPAL", "DECISION", "INDEX"}

// Table writes records as lines of a table. Columns are as wide as their widest value
// so far, so that what is written later may stand wider, never narrower.
type Table struct {
	w      io.Writer
	widths []int
}

// NewTable returns a table that is written to w.
func NewTable(w io.Writer) *Table { return &Table{w: w} }

// WriteTable writes records as a table, a line each after the heading.
func WriteTable(w io.Writer, records []*writv1.StoredRecord) error {
	return NewTable(w).Write(records)
}

// Write adds a line for each record, and the heading before the first.
func (t *Table) Write(records []*writv1.StoredRecord) error {
	rows := make([][]string, 0, len(records)+1)
	if t.widths == nil {
		t.widths = make([]int, len(columns))
		rows = append(rows, columns)
	}
	for _, stored := range records {
		rows = append(rows, row(viewOf(stored)))
	}
	for _, cells := range rows {
		for i, c := range cells {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, cells := range rows {
		for i, c := range cells[:len(cells)-1] {
			b.WriteString(c)
			b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(c)+2))
		}
		b.WriteString(cells[len(cells)-1])
		b.WriteByte('\n')
	}
	if _, err := io.WriteString(t.w, b.String()); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}

// row is the cells of a record. Every value that is not ours goes through cell.
func row(v view) []string {
	if v.err != nil {
		return []string{"-", "UNREADABLE", "-", "-", "-", "-", "-", "-", "-"}
	}
	d, who := v.decision(), principal(v.decision().GetPrincipal())
	if read, ok := v.body.(*writv1.ReadRecord); ok {
		who = read.GetReader()
	}
	return []string{
		v.time().Format(timeForm), cell(v.kind()), cell(v.result()), cell(v.reason()), cell(d.GetTool()),
		cell(v.record.GetTenant()), cell(who), cell(v.id()), strconv.FormatUint(v.record.GetIndex(), 10),
	}
}
