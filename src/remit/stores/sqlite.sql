-- name: put tasks
INSERT INTO tasks (id, rev, closed, body, tag) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET rev = excluded.rev, closed = excluded.closed, body = excluded.body, tag = excluded.tag;

-- name: put grants
INSERT INTO grants (task, id, rev, body, tag) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (task, id) DO UPDATE SET rev = excluded.rev, body = excluded.body, tag = excluded.tag;

-- name: put leases
INSERT INTO leases (task, id, rev, body, tag) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (task, id) DO UPDATE SET rev = excluded.rev, body = excluded.body, tag = excluded.tag;

-- name: put spends
INSERT OR REPLACE INTO spends (task, grant_id, detail, used, tag) VALUES (?, ?, ?, ?, ?);

-- name: put resources
INSERT OR REPLACE INTO resources (name, body, tag) VALUES (?, ?, ?);

-- name: put secrets
INSERT OR REPLACE INTO secrets (name, version, resource, destination, sealed, tag) VALUES (?, ?, ?, ?, ?, ?);

-- name: put burns
INSERT OR REPLACE INTO burns (digest, until, tag) VALUES (?, ?, ?);

-- name: put records
INSERT OR REPLACE INTO records (kind, id, rev, until, body, tag) VALUES (?, ?, ?, ?, ?, ?);

-- name: delete leases
DELETE FROM leases WHERE task = ? AND id = ?;

-- name: delete resources
DELETE FROM resources WHERE name = ?;

-- name: delete secrets
DELETE FROM secrets WHERE name = ?;

-- name: delete burns
DELETE FROM burns WHERE digest = ?;

-- name: delete records
DELETE FROM records WHERE kind = ? AND id = ?;

-- name: put tiles
INSERT INTO tiles (n, hash) VALUES (?, ?);

-- name: put entries
INSERT INTO entries (seq, leaf, hash) VALUES (?, ?, ?);

-- name: new
SELECT NOT (
    EXISTS (SELECT 1 FROM state) OR EXISTS (SELECT 1 FROM tasks) OR EXISTS (SELECT 1 FROM entries)
);

-- name: start state
INSERT INTO state (one, size, tag) VALUES (1, 0, ?);

-- name: put state
UPDATE state SET size = ?, tag = ? WHERE one = 1 AND tag = ?;

-- name: one spends
SELECT used, tag FROM spends WHERE task = ? AND grant_id = ? AND detail = ?;

-- name: one resources
SELECT body, tag FROM resources WHERE name = ?;

-- name: one secrets
SELECT version, resource, destination, sealed, tag FROM secrets WHERE name = ?;

-- name: one burns
SELECT until, tag FROM burns WHERE digest = ?;

-- name: one records
SELECT rev, until, body, tag FROM records WHERE kind = ? AND id = ?;

-- name: head
SELECT id, rev, closed, body, tag FROM tasks WHERE id = ?;

-- name: parts grants
SELECT id, rev, body, tag FROM grants WHERE task = ? ORDER BY n;

-- name: parts leases
SELECT id, rev, body, tag FROM leases WHERE task = ? ORDER BY n;

-- name: secrets of
SELECT name FROM secrets WHERE resource = ?;

-- name: burnt before
SELECT digest FROM burns WHERE until < ?;

-- name: over before
SELECT kind, id FROM records WHERE until < ?;

-- name: records of
SELECT kind, id, rev, until, body, tag FROM records WHERE kind = ? ORDER BY id;

-- name: all tasks
SELECT id, rev, closed, body FROM tasks;

-- name: all spends
SELECT task, grant_id, detail, used, tag FROM spends;

-- name: all resources
SELECT name, body, tag FROM resources ORDER BY name;

-- name: all secrets
SELECT name, version, resource, destination, sealed, tag FROM secrets;

-- name: all burns
SELECT digest, until, tag FROM burns;

-- name: all records
SELECT kind, id, rev, until, body, tag FROM records;

-- name: state
SELECT size, tag FROM state WHERE one = 1;

-- name: unsettled
SELECT id FROM tasks WHERE closed = 0 UNION SELECT DISTINCT task FROM leases;

-- name: newest
SELECT id FROM tasks ORDER BY n DESC LIMIT ?;

-- name: in clear
SELECT id FROM tasks ORDER BY n;

-- name: spent
SELECT task, grant_id, detail, used, tag FROM spends WHERE task = ?;

-- name: entries
SELECT seq, leaf, hash FROM entries WHERE seq >= ? ORDER BY seq LIMIT ?;

-- name: leaves
SELECT hash FROM entries WHERE seq >= ? AND seq < ? ORDER BY seq;

-- name: last entry
SELECT max(seq) FROM entries;

-- name: tiles
SELECT hash FROM tiles WHERE n >= ? AND n < ? ORDER BY n;
