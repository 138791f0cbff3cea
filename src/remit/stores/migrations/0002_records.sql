-- Small documents of their own, compared and set by rev: approvals, chains of refresh tokens, signals.

CREATE TABLE records (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    rev INTEGER NOT NULL,
    until TEXT NOT NULL,
    body BLOB NOT NULL,
    tag BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_until ON records (until);
