// SPDX-License-Identifier: Apache-2.0

package export

import (
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
)

// A row group is held in memory until it is written.
const (
	groupRows  = 32 << 10
	groupBytes = 32 << 20
)

// parquetRow is a record as a row. What is absent is null.
type parquetRow struct {
	Time         int64    `parquet:"time,timestamp(nanosecond)"`
	Origin       string   `parquet:"origin,dict"`
	Index        uint64   `parquet:"index"`
	Epoch        uint64   `parquet:"epoch"`
	Kind         string   `parquet:"kind,dict"`
	DecisionID   string   `parquet:"decision_id,optional"`
	Verdict      string   `parquet:"verdict,optional,dict"`
	State        string   `parquet:"state,optional,dict"`
	Reason       string   `parquet:"reason,optional,dict"`
	Tool         string   `parquet:"tool,optional,dict"`
	Tenant       string   `parquet:"tenant,optional,dict"`
	Workload     string   `parquet:"workload,optional,dict"`
	User         string   `parquet:"user,optional,dict"`
	Roles        []string `parquet:"roles,list"`
	BundleDigest string   `parquet:"bundle_digest,optional,dict"`
	Arguments    string   `parquet:"arguments,optional"`
	Result       string   `parquet:"result,optional"`
	Commitments  []string `parquet:"commitments,list"`
	Body         string   `parquet:"body,optional"`
}

// columnar writes Parquet.
type columnar struct {
	out         *parquet.GenericWriter[parquetRow]
	rows, bytes int // of the row group under way
}

func newParquet(w io.Writer) Writer {
	// What made the file is not written: the bytes are the records' alone.
	return &columnar{out: parquet.NewGenericWriter[parquetRow](w, parquet.Compression(&parquet.Zstd), parquet.CreatedBy("writ", "1", "0"))}
}

// Write adds a row.
func (w *columnar) Write(origin string, record []byte) error {
	r, err := rowOf(origin, record)
	if err != nil {
		return err
	}
	_, err = w.out.Write([]parquetRow{{
		Time: r.time().UnixNano(), Origin: r.Origin, Index: *r.Index, Epoch: r.Epoch, Kind: r.Kind, DecisionID: r.DecisionID,
		Verdict: r.Verdict, State: r.State, Reason: r.Reason, Tool: r.Tool, Tenant: r.Tenant, Workload: r.Workload, User: r.User,
		Roles: r.Roles, BundleDigest: r.BundleDigest, Arguments: string(r.Arguments), Result: string(r.Result),
		Commitments: r.Commitments, Body: string(r.Body),
	}})
	if err != nil {
		return fmt.Errorf("write a row: %w", err)
	}
	w.rows, w.bytes = w.rows+1, w.bytes+len(r.Body)+len(r.Arguments)+len(r.Result)
	if w.rows < groupRows && w.bytes < groupBytes {
		return nil
	}
	w.rows, w.bytes = 0, 0
	return w.out.Flush()
}

// Close writes the last row group and the footer, without which there is no file.
func (w *columnar) Close() error { return w.out.Close() }
