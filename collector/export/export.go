// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Writer writes records in one format. It is for one goroutine.
type Writer interface {
	// Write adds a record of the ledger with that origin: its canonical bytes, which
	// MUST have been verified. Records of a ledger come in its order.
	Write(origin string, record []byte) error
	// Close ends what is written. It does not close what it is written to.
	Close() error
}

// formats is every format, by its name.
var formats = []struct {
	name string
	open func(io.Writer) Writer
}{
	{"ndjson", newNDJSON},
	{"csv", newCSV},
	{"parquet", newParquet},
	{"ocsf", newOCSF},
	{"cloudtrail", newCloudTrail},
}

// Formats are the names of the formats.
func Formats() []string {
	out := make([]string, len(formats))
	for i, f := range formats {
		out[i] = f.name
	}
	return out
}

// New returns the writer of a format.
func New(format string, w io.Writer) (Writer, error) {
	for _, f := range formats {
		if f.name == format {
			return f.open(w), nil
		}
	}
	return nil, fmt.Errorf("%q is no format", format)
}

// row is a record as the formats see it.
type row struct {
	query.Object
	record   *writv1.Record
	decision *writv1.DecisionRecord // or nil
	outcome  *writv1.OutcomeRecord  // or nil
}

func rowOf(origin string, raw []byte) (row, error) {
	out := row{Object: query.ObjectOf(&writv1.StoredRecord{Origin: origin, Record: raw}), record: &writv1.Record{}}
	if out.Error != "" {
		return out, fmt.Errorf("a record of %s: %s", origin, out.Error)
	}
	if err := proto.Unmarshal(raw, out.record); err != nil { // canonical: it was read above
		return out, fmt.Errorf("a record of %s: %w", origin, err)
	}
	body, err := ledger.Body(out.record)
	if err != nil {
		return out, fmt.Errorf("a record of %s: %w", origin, err)
	}
	out.decision, _ = body.(*writv1.DecisionRecord)
	out.outcome, _ = body.(*writv1.OutcomeRecord)
	return out, nil
}

// ndjson writes the objects of "writ records list --output json", one a line.
type ndjson struct{ out io.Writer }

func newNDJSON(w io.Writer) Writer { return ndjson{w} }

// Write adds a line.
func (w ndjson) Write(origin string, record []byte) error {
	r, err := rowOf(origin, record)
	if err != nil {
		return err
	}
	text, err := line(r.Object)
	if err != nil {
		return err
	}
	_, err = w.out.Write(text)
	return err
}

// Close does nothing: every line is whole by itself.
func (ndjson) Close() error { return nil }

// line is a JSON object on one line, which a terminal may show.
func line(object any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(object); err != nil {
		return nil, fmt.Errorf("write a record: %w", err)
	}
	return query.PrintableJSON(out.Bytes()), nil
}
