-- Corrections of what was settled are events from ended to ended.
CREATE INDEX events_corrections ON events (lease, cost) WHERE was = 'ended';
