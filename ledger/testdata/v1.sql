-- A ledger that version 1 of the schema has written.
PRAGMA application_id = 0x6770756c;
PRAGMA user_version = 1;
CREATE TABLE chains (
	name TEXT    PRIMARY KEY,
	seq  INTEGER NOT NULL,
	hash BLOB    NOT NULL
) STRICT;
INSERT INTO "chains" VALUES('events',4,X'8D46E2149EDADB9B4D48118C10D972BDC0A3D8B812523AA54CA29267524BBE47');
INSERT INTO "chains" VALUES('decisions',3,X'ADC6E9E26C7ED6C4F722627A1C8766EA0B4D79569A27C807D688689F5CE3C092');
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
INSERT INTO "decisions" VALUES(1,1773835200000,'alice','allow',0,'','aaaaaaaaaaaa','[]',X'F6C3E128AC266DCBF00FDC85EB622BC6AD1303A551EF44A226796412167166F6');
INSERT INTO "decisions" VALUES(2,1773835200000,'alice','allow',0,'','bbbbbbbbbbbb','[]',X'BFDA9A416C543498EC76D2A5B145D500BD80C820214273A0348B60FF6697DC1E');
INSERT INTO "decisions" VALUES(3,1773835200000,'alice','deny',100000000,'hash','','[{"Rule":"caps.lifetime","Code":"","Limit":"$10.00","Asked":"","Source":"","Message":""}]',X'ADC6E9E26C7ED6C4F722627A1C8766EA0B4D79569A27C807D688689F5CE3C092');
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
INSERT INTO "events" VALUES(1,1773835200000,'aaaaaaaaaaaa',1,'','launching','reserved',0,'50cb8ed1e4107ab84792143fcb8033057c1955bd77e08db48c7e08bcb8878e74',X'1B09FB3B64F5C70C4DAA8F579FCE705158E6005FF7C568376A6682A42B15077C');
INSERT INTO "events" VALUES(2,1773835200000,'aaaaaaaaaaaa',2,'launching','booting','to booting',0,'e04cee5300a86c71de8d039b3977cadca5408b7a81870aac0b2eab7aba7674b4',X'22C72C6FA757942236C79A83AD9A205DCD10EBCC91E3248D7E28876E54770068');
INSERT INTO "events" VALUES(3,1773835200000,'bbbbbbbbbbbb',1,'','launching','reserved',0,'bbc71746fe3ed294a1ec075ce2f1095ebf16f223bf45615f03eba4c0ef0845a8',X'934B26B1E1A187168CAA72A85D77012DE70F1DF67EDAF3351951A63063518C65');
INSERT INTO "events" VALUES(4,1773835200000,'bbbbbbbbbbbb',2,'launching','ended','to ended',1290000,'846a4173d55d8d8cdd07ab8a0b95861df3221ac2df3a74ce29b351e26a6e7036',X'8D46E2149EDADB9B4D48118C10D972BDC0A3D8B812523AA54CA29267524BBE47');
CREATE TABLE guards (
	name TEXT    PRIMARY KEY,
	seen INTEGER NOT NULL
) STRICT;
INSERT INTO "guards" VALUES('keeper 1',1773835200000);
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
INSERT INTO "leases" VALUES(1,'aaaaaaaaaaaa',2,'booting','','','alice','','','','','','gpu_1x_a10','','',1,1000000,5000000,0,0,0,0,'gl-aaaaaaaaaaaa','','i-a','','',1773835200000,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "leases" VALUES(2,'bbbbbbbbbbbb',2,'ended','','','alice','trains','train','','','','gpu_1x_a10','','',1,1000000,0,1290000,0,0,0,'gl-bbbbbbbbbbbb','','','','',1773835200000,0,0,0,0,0,0,0,0,0,0,0,1773835200000);
CREATE TABLE meta (
	key   TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT;
INSERT INTO "meta" VALUES('ledger_id','aeba');
CREATE TABLE rates (
	account TEXT    NOT NULL,
	slot    TEXT    NOT NULL,
	next    INTEGER NOT NULL,
	PRIMARY KEY (account, slot)
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
CREATE INDEX events_lease ON events (lease, seq);
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
