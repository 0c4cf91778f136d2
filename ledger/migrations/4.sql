-- For how long the GPUs were watched, and were busy then.
ALTER TABLE leases ADD COLUMN gpu_watched_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN gpu_busy_ns    INTEGER NOT NULL DEFAULT 0;
