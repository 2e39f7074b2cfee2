// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"fmt"
)

// applicationID marks the file as a store: "writ".
const applicationID = 0x77726974

// migrations make the schema, each from the one before: the version of a file is how
// many it has. What is here is never changed; a change is one more at the end.
//
// Numbers are signed in SQLite; times are nanoseconds since the Unix epoch. A bundle's
// seq is that of its first record, so that bundles tile the sequence from 1 on, and the
// place of a record in its bundle follows from both. Columns to filter by are NULL
// where a record has no such value. An outcome's tool, verdict, workload and user are
// its decision's.
var migrations = []string{
	`
PRAGMA application_id = 0x77726974;
CREATE TABLE ledgers (
  id INTEGER PRIMARY KEY,
  origin TEXT NOT NULL UNIQUE,
  vkey TEXT NOT NULL,
  size INTEGER NOT NULL,
  root BLOB NOT NULL,
  hashes BLOB NOT NULL, -- compact range, left to right
  epoch INTEGER NOT NULL, -- of the last record
  head BLOB NOT NULL,
  first_time INTEGER NOT NULL,
  last_time INTEGER NOT NULL
) STRICT;
CREATE TABLE bundles (
  seq INTEGER PRIMARY KEY,
  ledger INTEGER NOT NULL REFERENCES ledgers (id),
  first INTEGER NOT NULL, -- index of the first record
  count INTEGER NOT NULL,
  start_time INTEGER NOT NULL, -- of the earliest record
  end_time INTEGER NOT NULL, -- of the latest
  receive_time INTEGER NOT NULL,
  UNIQUE (ledger, first)
) STRICT;
CREATE INDEX bundles_end_time ON bundles (end_time);
CREATE TABLE payloads (
  seq INTEGER PRIMARY KEY REFERENCES bundles (seq),
  head BLOB NOT NULL,
  leaves BLOB NOT NULL, -- the Merkle leaf of each record, for Verify to tell which one is bad
  records BLOB NOT NULL -- each after its length, four bytes little endian
) STRICT;
CREATE TABLE records (
  seq INTEGER PRIMARY KEY,
  ledger INTEGER NOT NULL,
  position INTEGER NOT NULL, -- index in the ledger
  time INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  decision_id BLOB,
  tool TEXT,
  verdict INTEGER,
  tenant TEXT,
  workload TEXT,
  user TEXT
) STRICT;
CREATE INDEX records_decision ON records (decision_id, ledger, kind) WHERE decision_id IS NOT NULL;
CREATE INDEX records_ledger ON records (ledger);
CREATE INDEX records_tool ON records (tool) WHERE tool IS NOT NULL;
CREATE INDEX records_verdict ON records (verdict) WHERE verdict IS NOT NULL;
CREATE INDEX records_tenant ON records (tenant) WHERE tenant IS NOT NULL;
CREATE INDEX records_workload ON records (workload) WHERE workload IS NOT NULL;
CREATE INDEX records_user ON records (user) WHERE user IS NOT NULL;
CREATE INDEX records_rare ON records (kind) WHERE kind IN (1, 5, 6);
CREATE TABLE findings (
  id INTEGER PRIMARY KEY,
  origin TEXT NOT NULL,
  kind TEXT NOT NULL,
  detail TEXT NOT NULL,
  held_size INTEGER NOT NULL,
  held_root BLOB NOT NULL,
  held_head BLOB NOT NULL,
  head BLOB NOT NULL,
  first_time INTEGER NOT NULL,
  last_time INTEGER NOT NULL,
  count INTEGER NOT NULL
) STRICT;
CREATE INDEX findings_origin ON findings (origin, kind);
`,
	`
CREATE TABLE stop_orders (
  id INTEGER PRIMARY KEY,
  stop TEXT NOT NULL,
  choice INTEGER NOT NULL,
  expire_time INTEGER NOT NULL,
  receive_time INTEGER NOT NULL,
  body BLOB NOT NULL, -- the canonical bytes of the StopOrder
  UNIQUE (stop, choice)
) STRICT;
`,
	`
CREATE TABLE shares (
  balance TEXT NOT NULL,
  holder TEXT NOT NULL, -- origin of the ledger
  window_end INTEGER NOT NULL,
  body BLOB NOT NULL, -- the canonical bytes of the HeldShare
  PRIMARY KEY (balance, holder)
) STRICT, WITHOUT ROWID;
`,
	// What tells of an agent is found without its decisions.
	`
CREATE INDEX records_agent ON records (ledger, kind) WHERE kind IN (4, 5);
`,
	// What filters compare beside; reindex fills it for what is there.
	`
ALTER TABLE records ADD COLUMN reason INTEGER;
ALTER TABLE records ADD COLUMN bundle BLOB;
ALTER TABLE records ADD COLUMN session BLOB;
ALTER TABLE records ADD COLUMN workflow TEXT;
ALTER TABLE records ADD COLUMN request_id TEXT;
ALTER TABLE records ADD COLUMN trace_id BLOB;
ALTER TABLE records ADD COLUMN checks TEXT; -- those that failed, each between line feeds
CREATE INDEX records_reason ON records (reason) WHERE reason > 1;
CREATE INDEX records_session ON records (session) WHERE session IS NOT NULL;
CREATE INDEX records_request ON records (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX records_trace ON records (trace_id) WHERE trace_id IS NOT NULL;
`,
	// The collector's log: which bundle or finding is its entry of an index. What was stored
	// before there was a log comes first, in the order of the sequence.
	`
CREATE TABLE entries (
  position INTEGER PRIMARY KEY, -- index in the log
  bundle INTEGER UNIQUE REFERENCES bundles (seq),
  finding INTEGER UNIQUE REFERENCES findings (id),
  CHECK ((bundle IS NULL) <> (finding IS NULL))
) STRICT;
INSERT INTO entries (position, bundle) SELECT row_number() OVER (ORDER BY seq) - 1, seq FROM bundles;
INSERT INTO entries (position, finding) SELECT (SELECT count(*) FROM bundles) + row_number() OVER (ORDER BY id) - 1, id FROM findings;
`,
}

// migrate brings the schema up to this program's version.
func migrate(ctx context.Context, db *sql.DB) error {
	version, err := versionOf(ctx, db)
	if err != nil {
		return err
	}
	if version > len(migrations) {
		return newer(version)
	}
	for ; version < len(migrations); version++ {
		if err := migrateOnce(ctx, db, version); err != nil {
			return fmt.Errorf("migrate to version %d: %w", version+1, err)
		}
	}
	return nil
}

func migrateOnce(ctx context.Context, db *sql.DB, version int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
		return err
	}
	if version+1 == len(migrations) { // once, with all columns there
		if err := reindex(ctx, tx); err != nil {
			return fmt.Errorf("index what is there: %w", err)
		}
	}
	// A PRAGMA takes no parameters.
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version+1)); err != nil {
		return err
	}
	return tx.Commit()
}

// versionOf reads the version of a file, which MUST be a store's or empty.
func versionOf(ctx context.Context, db *sql.DB) (int, error) {
	var application, version, objects int
	err := db.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)`).Scan(&application, &version, &objects)
	if err != nil {
		return 0, err
	}
	if application != applicationID && (objects > 0 || version != 0) {
		return 0, fmt.Errorf("%w: %s is the database of another program", ErrVersion, fileName)
	}
	return version, nil
}

// checkVersion makes sure that this program can read a file.
func checkVersion(ctx context.Context, db *sql.DB) error {
	version, err := versionOf(ctx, db)
	switch {
	case err != nil:
		return err
	case version > len(migrations):
		return newer(version)
	case version < len(migrations):
		return fmt.Errorf("%w: version %d, this program reads %d: start a collector once, which brings it up", ErrVersion, version, len(migrations))
	}
	return nil
}

func newer(version int) error {
	return fmt.Errorf("%w: version %d is newer than this program's %d: use the program that made it", ErrVersion, version, len(migrations))
}
