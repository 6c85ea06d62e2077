-- +goose Up
-- Times are Unix milliseconds of this server's clock. Names are not qualified:
-- the search path is our schema and nothing else, here and in every session.

CREATE TABLE cluster (
    one        smallint PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    cluster_id uuid   NOT NULL,
    created_at bigint NOT NULL
);

-- topic_no is never given twice, so what refers to a deleted topic can never
-- come to mean another. A deleted topic keeps its row until its extents are purged.
CREATE TABLE topics (
    topic_no        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic_id        uuid    NOT NULL UNIQUE,
    name            text    COLLATE "C" NOT NULL,
    partitions      integer NOT NULL CHECK (partitions > 0),
    retention_ns    bigint  NOT NULL,
    retention_bytes bigint  NOT NULL,
    created_at      bigint  NOT NULL,
    deleted_at      bigint
);
CREATE UNIQUE INDEX topics_name ON topics (name) WHERE deleted_at IS NULL;
CREATE INDEX topics_deleted ON topics (topic_id) WHERE deleted_at IS NOT NULL;

-- The hot row. Half of each page is free, so that new versions stay in it.
CREATE TABLE partitions (
    topic_no    bigint  NOT NULL,
    partition   integer NOT NULL,
    log_start   bigint  NOT NULL DEFAULT 0,
    next_offset bigint  NOT NULL DEFAULT 0,
    bytes       bigint  NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    PRIMARY KEY (topic_no, partition),
    CHECK (log_start BETWEEN 0 AND next_offset)
) WITH (fillfactor = 50);

-- state: 1 pending, 2 committed, 3 deleting, 4 deleted. outcomes is null until a
-- commit has judged the segment; one number a batch, see outcome.go. held is null unless the
-- segment was committed by a compaction: how many of its copies held.
CREATE TABLE segments (
    segment_id   uuid     PRIMARY KEY,
    object_key   text     NOT NULL,
    state        smallint NOT NULL CHECK (state BETWEEN 1 AND 4),
    created_at   bigint   NOT NULL,
    state_at     bigint   NOT NULL,
    size_bytes   bigint   NOT NULL DEFAULT 0,
    crc32c       bigint   NOT NULL DEFAULT 0,
    live_extents integer  NOT NULL DEFAULT 0 CHECK (live_extents >= 0),
    replays      integer  NOT NULL DEFAULT 0,
    held         integer,
    outcomes     bigint[]
);
CREATE INDEX segments_pending ON segments (created_at, segment_id) WHERE state = 1;
CREATE INDEX segments_deleting ON segments (segment_id) INCLUDE (state_at) WHERE state = 3;
CREATE INDEX segments_deleted ON segments (state_at, segment_id) WHERE state = 4;

CREATE TABLE extents (
    topic_no      bigint  NOT NULL,
    partition     integer NOT NULL,
    base_offset   bigint  NOT NULL,
    last_offset   bigint  NOT NULL CHECK (last_offset >= base_offset),
    segment_id    uuid    NOT NULL,
    position      bigint  NOT NULL,
    length        bigint  NOT NULL,
    batches       integer NOT NULL,
    max_timestamp bigint  NOT NULL,
    committed_at  bigint  NOT NULL,
    PRIMARY KEY (topic_no, partition, base_offset)
);

-- active_at is when the session was active, up to an hour late or, beside other
-- commits, later; producer_partitions knows exactly.
CREATE TABLE producers (
    producer_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text     COLLATE "C" UNIQUE,
    epoch       smallint NOT NULL,
    active_at   bigint   NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX producers_idle ON producers (active_at) WHERE name IS NULL;

-- recent has a row {first sequence, last sequence, base offset} for each of the
-- newest five batches, the oldest first.
CREATE TABLE producer_partitions (
    producer_id   bigint   NOT NULL,
    topic_no      bigint   NOT NULL,
    partition     integer  NOT NULL,
    accepted_at   bigint   NOT NULL,
    epoch         smallint NOT NULL,
    last_sequence integer  NOT NULL,
    recent        bigint[] NOT NULL,
    PRIMARY KEY (producer_id, topic_no, partition)
) WITH (fillfactor = 50);
CREATE INDEX producer_partitions_topic ON producer_partitions (topic_no);

-- Every decision takes the time from here.
-- +goose StatementBegin
CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE
    AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint';
-- +goose StatementEnd

INSERT INTO cluster (cluster_id, created_at) VALUES (gen_random_uuid(), now_ms());

-- +goose Down
DROP FUNCTION now_ms();
DROP TABLE producer_partitions, producers, extents, segments, partitions, topics, cluster;
