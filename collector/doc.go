// SPDX-License-Identifier: Apache-2.0

// Package collector is upstream's face: one gRPC server on which agents send their
// ledgers (collector/ingest), people read records (collector/query), and operators stop
// calls (collector/shared), over one store (collector/store), of which it keeps a log
// that others can check (collector/heads).
//
// It promises that what it acknowledges is verified and stored durably, and says so with
// its own key, collector.key in the data directory, made at the first start; that what is
// wrong with a ledger is kept and told (collector/findings); and that who reads what is
// recorded, durably, before it is answered (collector/reads). Over TLS readers do what the
// configuration says; otherwise whoever reaches the listener reads every record. The
// transport's security is its caller's.
//
//	c, err := collector.New(ctx, collector.Options{Config: config, Credentials: credentials, Clock: time.Now, Log: log})
//	err = c.Serve(ctx, listener) // until ctx ends
//	err = c.Close()
package collector
