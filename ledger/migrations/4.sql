-- For how long the GPUs were watched, and were busy then.
ALTER TABLE leases ADD COLUMN gpu_watched_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN gpu_busy_ns    INTEGER NOT NULL DEFAULT 0;
-- The host key that a machine has made for itself, while it may or may not be in force, and where the pinned one is from.
ALTER TABLE leases ADD COLUMN next_host_key TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN host_key_from TEXT NOT NULL DEFAULT '';
