CREATE TABLE meta (
	key   TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT;

-- Money in micro-dollars; times in unix milliseconds, 0 for "not yet"; names ending in _ns are nanoseconds.
CREATE TABLE leases (
	seq             INTEGER PRIMARY KEY,
	id              TEXT    NOT NULL UNIQUE CHECK (id <> ''),
	version         INTEGER NOT NULL CHECK (version >= 1),
	state           TEXT    NOT NULL CHECK (state IN ('waiting_capacity', 'awaiting_approval', 'launching', 'booting', 'ready', 'stopping', 'ended')),
	reason          TEXT    NOT NULL,
	detail          TEXT    NOT NULL,
	principal       TEXT    NOT NULL,
	purpose         TEXT    NOT NULL,
	idempotency_key TEXT    NOT NULL,
	fingerprint     TEXT    NOT NULL,
	policy_hash     TEXT    NOT NULL,
	account         TEXT    NOT NULL,
	type            TEXT    NOT NULL,
	region          TEXT    NOT NULL,
	image_family    TEXT    NOT NULL,
	gpus            INTEGER NOT NULL CHECK (gpus >= 0),
	price           INTEGER NOT NULL CHECK (price >= 0),
	reserved        INTEGER NOT NULL CHECK (reserved >= 0),
	cost            INTEGER NOT NULL CHECK (cost >= 0),
	ttl_ns          INTEGER NOT NULL CHECK (ttl_ns >= 0),
	boot_ns         INTEGER NOT NULL CHECK (boot_ns >= 0),
	stop_ns         INTEGER NOT NULL CHECK (stop_ns >= 0),
	name            TEXT    NOT NULL,
	key_name        TEXT    NOT NULL,
	instance_id     TEXT    NOT NULL,
	addr            TEXT    NOT NULL,
	host_key        TEXT    NOT NULL,
	created_at      INTEGER NOT NULL CHECK (created_at > 0),
	launch_sent_at  INTEGER NOT NULL,
	seen_at         INTEGER NOT NULL,
	missing_since   INTEGER NOT NULL,
	missing         INTEGER NOT NULL CHECK (missing >= 0),
	billing_from    INTEGER NOT NULL,
	ready_at        INTEGER NOT NULL,
	deadline        INTEGER NOT NULL,
	hard_stop       INTEGER NOT NULL,
	stop_at         INTEGER NOT NULL,
	terminate_at    INTEGER NOT NULL,
	gone_at         INTEGER NOT NULL,
	ended_at        INTEGER NOT NULL,
	CHECK (state <> 'ended' OR (reserved = 0 AND ended_at > 0))
) STRICT;

CREATE INDEX leases_live ON leases (created_at, seq) WHERE state <> 'ended';
CREATE INDEX leases_ended ON leases (ended_at, principal, cost) WHERE state = 'ended';
CREATE INDEX leases_created ON leases (created_at, principal, id);
CREATE UNIQUE INDEX leases_key ON leases (principal, idempotency_key) WHERE idempotency_key <> '';
CREATE UNIQUE INDEX leases_instance ON leases (instance_id) WHERE instance_id <> '';
CREATE UNIQUE INDEX leases_name ON leases (name) WHERE name <> '';

CREATE TRIGGER leases_kept BEFORE DELETE ON leases
BEGIN SELECT RAISE(ABORT, 'leases are never deleted'); END;
CREATE TRIGGER leases_final BEFORE UPDATE ON leases WHEN OLD.state = 'ended'
BEGIN SELECT RAISE(ABORT, 'a lease that has ended is final'); END;

CREATE TABLE events (
	seq      INTEGER PRIMARY KEY,
	at       INTEGER NOT NULL,
	lease    TEXT    NOT NULL REFERENCES leases (id),
	version  INTEGER NOT NULL,
	was      TEXT    NOT NULL,
	became   TEXT    NOT NULL,
	note     TEXT    NOT NULL,
	cost     INTEGER NOT NULL,
	digest   TEXT    NOT NULL,
	hash     BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE INDEX events_lease ON events (lease, seq);

CREATE TABLE decisions (
	seq         INTEGER PRIMARY KEY,
	at          INTEGER NOT NULL,
	principal   TEXT    NOT NULL,
	verdict     TEXT    NOT NULL,
	worst_case  INTEGER NOT NULL,
	policy_hash TEXT    NOT NULL,
	lease       TEXT    NOT NULL,
	violations  TEXT    NOT NULL,
	hash        BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- The last link of each chain, so that a tail cut off is missed.
CREATE TABLE chains (
	name TEXT    PRIMARY KEY,
	seq  INTEGER NOT NULL,
	hash BLOB    NOT NULL
) STRICT;

CREATE TRIGGER events_unchanged BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_kept BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_in_order BEFORE INSERT ON events WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM events)
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER decisions_unchanged BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER decisions_kept BEFORE DELETE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
CREATE TRIGGER decisions_in_order BEFORE INSERT ON decisions WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM decisions)
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;

CREATE TABLE guards (
	name TEXT    PRIMARY KEY,
	seen INTEGER NOT NULL
) STRICT;

CREATE TABLE rates (
	account TEXT    NOT NULL,
	slot    TEXT    NOT NULL,
	next    INTEGER NOT NULL,
	PRIMARY KEY (account, slot)
) STRICT;
