// SPDX-License-Identifier: Apache-2.0

// Package collector is upstream's face: one gRPC server on which agents send their
// ledgers (collector/ingest), people read records (collector/query), and operators stop
// calls (collector/shared), over one store (collector/store), of which it keeps a log
// that others can check (collector/heads).
//
// It promises that what it acknowledges is verified and stored durably, and says so with
// its own key, collector.key in the data directory, made at the first start. The
// transport's security is its caller's: whoever reaches the listener can read every
// record, and send the ledgers whose log keys it holds.
//
//	c, err := collector.New(ctx, collector.Options{Config: config, Credentials: credentials, Clock: time.Now, Log: log})
//	err = c.Serve(ctx, listener) // until ctx ends
//	err = c.Close()
package collector
