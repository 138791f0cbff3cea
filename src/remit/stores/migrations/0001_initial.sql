-- Every row that authority rests on carries a tag (a MAC over kind, key, revision and body); see ledger.py.

CREATE TABLE tasks (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    rev INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    body BLOB NOT NULL,
    tag BLOB NOT NULL
) STRICT;
CREATE INDEX tasks_open ON tasks (id) WHERE closed = 0;

CREATE TABLE grants (
    n INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    id TEXT NOT NULL,
    rev INTEGER NOT NULL,
    body BLOB NOT NULL,
    tag BLOB NOT NULL,
    UNIQUE (task, id)
) STRICT;

CREATE TABLE leases (
    n INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    id TEXT NOT NULL,
    rev INTEGER NOT NULL,
    body BLOB NOT NULL,
    tag BLOB NOT NULL,
    UNIQUE (task, id)
) STRICT;

CREATE TABLE spends (
    task TEXT NOT NULL,
    grant_id TEXT NOT NULL,
    detail INTEGER NOT NULL,
    used INTEGER NOT NULL,
    tag BLOB NOT NULL,
    PRIMARY KEY (task, grant_id, detail)
) STRICT, WITHOUT ROWID;

CREATE TABLE resources (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL,
    tag BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    resource TEXT NOT NULL,
    destination TEXT NOT NULL,
    sealed BLOB NOT NULL,
    tag BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX secrets_resource ON secrets (resource);

CREATE TABLE burns (
    digest TEXT PRIMARY KEY,
    until TEXT NOT NULL,
    tag BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX burns_until ON burns (until);

CREATE TABLE entries (
    seq INTEGER PRIMARY KEY,
    leaf TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;

CREATE TABLE tiles (
    n INTEGER PRIMARY KEY,
    hash BLOB NOT NULL
) STRICT;

CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    tag BLOB NOT NULL
) STRICT;
