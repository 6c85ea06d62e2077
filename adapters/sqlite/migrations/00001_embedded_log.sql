-- +goose Up
CREATE TABLE cluster (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    cluster_id BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- topic_no is never given twice, so what refers to a deleted topic can never
-- come to mean another.
CREATE TABLE topics (
    topic_no        INTEGER PRIMARY KEY AUTOINCREMENT,
    topic_id        BLOB NOT NULL UNIQUE,
    name            TEXT NOT NULL UNIQUE,
    partitions      INTEGER NOT NULL,
    retention_ns    INTEGER NOT NULL,
    retention_bytes INTEGER NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;

-- partition_key is topic_no * 2^20 + partition: one integer, and the
-- partitions of a topic are neighbours. row_crc32c covers the other values of its row
-- here, and all values in extents.
CREATE TABLE partitions (
    partition_key INTEGER PRIMARY KEY,
    log_start     INTEGER NOT NULL,
    next_offset   INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    row_crc32c    INTEGER NOT NULL
) STRICT;

-- state: 1 pending, 2 committed, 3 deleting. outcomes is null until a commit
-- has judged the segment.
CREATE TABLE segments (
    segment_no   INTEGER PRIMARY KEY,
    segment_id   BLOB NOT NULL UNIQUE,
    object_key   TEXT NOT NULL,
    state        INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    committed_at INTEGER NOT NULL DEFAULT 0,
    size_bytes   INTEGER NOT NULL DEFAULT 0,
    crc32c       INTEGER NOT NULL DEFAULT 0,
    live_extents INTEGER NOT NULL DEFAULT 0,
    replays      INTEGER NOT NULL DEFAULT 0,
    outcomes     BLOB
) STRICT;

CREATE TABLE extents (
    partition_key INTEGER NOT NULL,
    base_offset   INTEGER NOT NULL,
    last_offset   INTEGER NOT NULL,
    segment_no    INTEGER NOT NULL,
    position      INTEGER NOT NULL,
    length        INTEGER NOT NULL,
    batches       INTEGER NOT NULL,
    max_timestamp INTEGER NOT NULL,
    row_crc32c    INTEGER NOT NULL,
    PRIMARY KEY (partition_key, base_offset)
) STRICT, WITHOUT ROWID;

-- active_at is when the session was active, up to an hour late;
-- producer_partitions knows exactly.
CREATE TABLE producers (
    producer_id INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT UNIQUE,
    epoch       INTEGER NOT NULL,
    active_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX producers_idle ON producers (active_at) WHERE name IS NULL;

CREATE TABLE producer_partitions (
    producer_id   INTEGER NOT NULL,
    partition_key INTEGER NOT NULL,
    accepted_at   INTEGER NOT NULL,
    state         BLOB NOT NULL,
    PRIMARY KEY (producer_id, partition_key)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE producer_partitions;
DROP TABLE producers;
DROP TABLE extents;
DROP TABLE segments;
DROP TABLE partitions;
DROP TABLE topics;
DROP TABLE cluster;
