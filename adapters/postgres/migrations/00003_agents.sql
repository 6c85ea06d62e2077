-- +goose Up
-- The list by which clients find agents: hints, one row an agent. Times are
-- milliseconds of the server's clock.
CREATE TABLE agents (
    agent_id    uuid    PRIMARY KEY,
    agent_group text    NOT NULL,
    zone        text    NOT NULL,
    address     text    NOT NULL,
    version     text    NOT NULL,
    started_at  bigint  NOT NULL,
    seen_at     bigint  NOT NULL,
    draining    boolean NOT NULL
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE agents;
