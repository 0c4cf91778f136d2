ALTER TABLE leases ADD COLUMN home         TEXT    NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN policy_origin TEXT   NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN asked_region TEXT    NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN results      TEXT    NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN results_dir  TEXT    NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN decide_by    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN approved_at  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN approved_by  TEXT    NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN reserved_at  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN idle_since   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN rescued_at   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN rescue       TEXT    NOT NULL DEFAULT '';

-- Launches count from when they were reserved.
CREATE INDEX leases_reserved ON leases (reserved_at, principal, id);

-- At most one row: while it is there, nothing is launched.
CREATE TABLE freezes (
	only INTEGER PRIMARY KEY CHECK (only = 1),
	at   INTEGER NOT NULL CHECK (at > 0),
	who  TEXT    NOT NULL,
	why  TEXT    NOT NULL
) STRICT;

-- Instances that no lease accounts for. Times in unix milliseconds; ended 0 for "still there".
CREATE TABLE strangers (
	account  TEXT    NOT NULL,
	instance TEXT    NOT NULL,
	name     TEXT    NOT NULL,
	type     TEXT    NOT NULL,
	region   TEXT    NOT NULL,
	price    INTEGER NOT NULL CHECK (price >= 0),
	since    INTEGER NOT NULL,
	seen     INTEGER NOT NULL,
	ended    INTEGER NOT NULL,
	PRIMARY KEY (account, instance)
) STRICT;

-- When a lease was last in use; no part of its history.
CREATE TABLE uses (
	lease TEXT    PRIMARY KEY,
	at    INTEGER NOT NULL
) STRICT;
