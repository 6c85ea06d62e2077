-- +goose Up
-- The transaction of a commit (domain/commit.Decide) as one statement, so that it
-- takes one round trip. twin.go does the same in Go; a test compares them.
--
-- What the call names is numbered from 1 by the caller: segments in their order, each
-- once; topics; partitions in the order of topic id and partition; producers by id; streams,
-- which are a producer on a partition; batches in the order of their segments.
--
-- a_seg_end      the last batch of each segment
-- a_stream_sum   how many records the call has for the stream
-- a_b_stream     0 for a batch without a producer
--
-- It returns the segments that have outcomes, with their number. See outcome.go
-- for how an outcome is told in a number.
-- +goose StatementBegin
CREATE FUNCTION commit_segments(
    a_seg uuid[], a_seg_size bigint[], a_seg_crc bigint[], a_seg_end integer[],
    a_topic uuid[], a_part_topic integer[], a_part_no integer[],
    a_producer bigint[], a_stream_producer integer[], a_stream_part integer[], a_stream_sum bigint[],
    a_b_seg integer[], a_b_part integer[], a_b_stream integer[], a_b_epoch integer[], a_b_first bigint[],
    a_b_records integer[], a_b_position bigint[], a_b_length integer[], a_b_max_ts bigint[]
) RETURNS TABLE (segment integer, answers bigint[]) LANGUAGE plpgsql AS $$
DECLARE
    n_seg    CONSTANT integer := cardinality(a_seg);
    n_batch  CONSTANT integer := cardinality(a_b_part);
    wrap     CONSTANT bigint  := 2147483647;  -- sequences live on a circle of 2^31
    half     CONSTANT bigint  := 1073741824;
    v_kind   integer[] := array_fill(0, ARRAY[n_seg]);  -- 0 refused, 1 to be judged, 2 judged before
    v_live   integer[] := array_fill(0, ARRAY[n_seg]);
    v_judge  boolean   := false;
    v_now    bigint    := now_ms();
    v_topic  bigint[];   -- by topic: its number
    v_next   bigint[];   -- by partition: its next offset, null if there is none
    v_epoch  integer[];  -- by producer: its newest epoch, null if it is unknown
    v_active bigint[];
    v_named  boolean[];
    v_gone   boolean[];
    v_stale  bigint[] := '{}';
    v_sess   integer[];  -- by stream: the epoch in which it may go on without a closer look
    v_seq    bigint[];   -- by stream: its next sequence
    v_begun  bigint[];   -- v_seq before this call
    v_seen   boolean[];  -- by stream: there is a row of the newest epoch
    v_close  boolean[];  -- by stream: every batch needs a closer look
    v_out    bigint[]  := array_fill(0::bigint, ARRAY[n_batch]);
    v_ext    integer[] := array_fill(0, ARRAY[n_batch]);  -- by batch: its extent, 0 if not accepted
    n_ext    integer   := 0;
    k_before integer;
    r        record;
    i        integer;
    b_from   integer;
    b_to     integer := 0;
    p        integer;
    s        integer;
    o        bigint;
    f        bigint;
    l        bigint;
    answer   bigint;
    fresh    boolean;
    prev_p   integer;
    prev_end bigint;
BEGIN
    FOR r IN SELECT x.segment_id, x.state, x.outcomes IS NOT NULL AS judged FROM segments x
            WHERE x.segment_id = ANY (a_seg) ORDER BY x.segment_id FOR UPDATE LOOP
        i := array_position(a_seg, r.segment_id);
        IF r.judged THEN
            v_kind[i] := 2;
        ELSIF r.state = 1 THEN
            v_kind[i] := 1;
            v_judge := true;
        END IF;
    END LOOP;

    IF v_judge AND n_batch > 0 THEN
        SELECT array_agg(t.topic_no ORDER BY u.ord) INTO v_topic
            FROM unnest(a_topic) WITH ORDINALITY u(id, ord) LEFT JOIN topics t ON t.topic_id = u.id;

        IF cardinality(a_producer) > 0 THEN
            SELECT array_agg(q.epoch ORDER BY u.ord), array_agg(q.active_at ORDER BY u.ord), array_agg(q.named ORDER BY u.ord)
                INTO v_epoch, v_active, v_named
                FROM unnest(a_producer) WITH ORDINALITY u(id, ord)
                LEFT JOIN LATERAL (SELECT x.epoch, x.active_at, x.name IS NOT NULL AS named
                    FROM producers x WHERE x.producer_id = u.id FOR SHARE) q ON true;
        END IF;

        SELECT array_agg(q.next_offset ORDER BY u.ord) INTO v_next
            FROM unnest(a_part_topic, a_part_no) WITH ORDINALITY u(t, no, ord)
            LEFT JOIN LATERAL (SELECT x.next_offset FROM partitions x
                WHERE x.topic_no = v_topic[u.t] AND x.partition = u.no FOR UPDATE) q ON true;

        -- Only now, so that times rise with the offsets of a partition.
        v_now := now_ms();

        IF cardinality(a_producer) > 0 THEN
            v_gone := array_fill(false, ARRAY[cardinality(a_producer)]);
            FOR i IN 1 .. cardinality(a_producer) LOOP
                CONTINUE WHEN v_epoch[i] IS NULL OR v_active[i] > v_now - 3600000;
                v_stale := v_stale || a_producer[i];
                CONTINUE WHEN v_active[i] > v_now - 86400000;
                SELECT coalesce(max(x.accepted_at), 0) <= v_now - 86400000 INTO fresh
                    FROM producer_partitions x WHERE x.producer_id = a_producer[i];
                IF fresh AND v_named[i] THEN
                    v_gone[i] := true;
                ELSIF fresh THEN
                    v_epoch[i] := NULL;
                END IF;
            END LOOP;

            -- A stream needs a closer look if a remembered batch may look like
            -- one that is next: the circle was gone round, or may be in this call.
            SELECT array_agg(q.seq ORDER BY q.ord), array_agg(q.seen ORDER BY q.ord), array_agg(q.close ORDER BY q.ord),
                    array_agg(CASE WHEN NOT q.close AND NOT v_gone[q.pr] THEN v_epoch[q.pr] END ORDER BY q.ord)
                INTO v_seq, v_seen, v_close, v_sess
                FROM (SELECT m.ord, m.pr, m.seq, m.seen, m.total >= half OR m.seen AND coalesce(
                        ((m.recent[1][1] - m.seq) & wrap) < half OR ((m.recent[2][1] - m.seq) & wrap) < half OR
                        ((m.recent[3][1] - m.seq) & wrap) < half OR ((m.recent[4][1] - m.seq) & wrap) < half OR
                        ((m.recent[5][1] - m.seq) & wrap) < half, false) AS close
                    FROM (SELECT u.ord, u.pr, u.total, x.recent, coalesce(x.epoch = v_epoch[u.pr], false) AS seen,
                            CASE WHEN x.epoch = v_epoch[u.pr] THEN (x.last_sequence::bigint + 1) & wrap ELSE 0 END AS seq
                        FROM unnest(a_stream_producer, a_stream_part, a_stream_sum) WITH ORDINALITY u(pr, pt, total, ord)
                        LEFT JOIN producer_partitions x ON x.producer_id = a_producer[u.pr]
                            AND x.topic_no = v_topic[a_part_topic[u.pt]] AND x.partition = a_part_no[u.pt]) m) q;
            v_begun := v_seq;
        END IF;

        FOR g IN 1 .. n_seg LOOP
            b_from := b_to + 1;
            b_to := a_seg_end[g];
            CONTINUE WHEN v_kind[g] <> 1;
            k_before := n_ext;
            prev_p := 0;
            FOR i IN b_from .. b_to LOOP
                p := a_b_part[i];
                o := v_next[p];
                IF o IS NULL THEN
                    v_out[i] := -7;
                    CONTINUE;
                END IF;
                s := a_b_stream[i];
                IF s > 0 THEN
                    f := a_b_first[i];
                    IF a_b_epoch[i] = v_sess[s] AND f = v_seq[s] THEN
                        v_seq[s] := (f + a_b_records[i]) & wrap;
                    ELSE
                        -- Refused, a repeat, or one that needs a closer look.
                        answer := NULL;
                        IF v_epoch[a_stream_producer[s]] IS NULL OR a_b_epoch[i] > v_epoch[a_stream_producer[s]] THEN
                            answer := -6;
                        ELSIF a_b_epoch[i] < v_epoch[a_stream_producer[s]] THEN
                            answer := -5;
                        ELSIF v_gone[a_stream_producer[s]] THEN
                            answer := -6;
                        ELSE
                            l := (f + a_b_records[i] - 1) & wrap;
                            fresh := NOT v_seen[s];
                            IF fresh AND (v_close[s] OR v_seq[s] <> v_begun[s]) THEN
                                fresh := NOT EXISTS (SELECT 1 FROM generate_series(1, i - 1) j WHERE a_b_stream[j] = s AND v_ext[j] > 0);
                            END IF;
                            IF NOT fresh THEN
                                SELECT -16 - w.base INTO answer FROM (
                                    SELECT c.age, c.j, c.first, c.last, c.base FROM (
                                        SELECT 0 AS age, j, x.recent[j][1] AS first, x.recent[j][2] AS last, x.recent[j][3] AS base
                                            FROM producer_partitions x CROSS JOIN generate_subscripts(x.recent, 1) j
                                            WHERE v_seen[s] AND x.producer_id = a_producer[a_stream_producer[s]]
                                                AND x.topic_no = v_topic[a_part_topic[p]] AND x.partition = a_part_no[p]
                                        UNION ALL
                                        SELECT 1, j, a_b_first[j], (a_b_first[j] + a_b_records[j] - 1) & wrap, v_out[j]
                                            FROM generate_series(1, CASE WHEN v_close[s] OR v_seq[s] <> v_begun[s] THEN i - 1 ELSE 0 END) j
                                            WHERE a_b_stream[j] = s AND v_ext[j] > 0) c
                                    ORDER BY c.age DESC, c.j DESC LIMIT 5) w
                                WHERE w.first = f AND w.last = l ORDER BY w.age, w.j LIMIT 1;
                            END IF;
                            IF answer IS NOT NULL THEN
                                NULL;
                            ELSIF f = v_seq[s] THEN
                                v_seq[s] := (f + a_b_records[i]) & wrap;
                            ELSIF NOT fresh AND ((f - v_seq[s]) & wrap) >= half AND ((l - v_seq[s]) & wrap) >= half THEN
                                answer := -3;
                            ELSE
                                answer := -4;
                            END IF;
                        END IF;
                        IF answer IS NOT NULL THEN
                            v_out[i] := answer;
                            CONTINUE;
                        END IF;
                    END IF;
                END IF;
                IF p <> prev_p OR a_b_position[i] <> prev_end THEN
                    n_ext := n_ext + 1;
                END IF;
                v_out[i] := o;
                v_ext[i] := n_ext;
                v_next[p] := o + a_b_records[i];
                prev_p := p;
                prev_end := a_b_position[i] + a_b_length[i];
            END LOOP;
            v_live[g] := n_ext - k_before;
        END LOOP;
    END IF;

    IF n_ext > 0 THEN
        INSERT INTO extents (topic_no, partition, base_offset, last_offset, segment_id, position, length, batches, max_timestamp, committed_at)
            SELECT v_topic[a_part_topic[u.pt]], a_part_no[u.pt], min(u.base), max(u.base + u.records) - 1, a_seg[u.sg],
                    min(u.position), sum(u.length), count(*), max(u.max_ts), v_now
                FROM unnest(a_b_seg, a_b_part, v_out, v_ext, a_b_records, a_b_position, a_b_length, a_b_max_ts)
                    u(sg, pt, base, ext, records, position, length, max_ts)
                WHERE u.ext > 0 GROUP BY u.ext, u.sg, u.pt;

        UPDATE partitions x SET next_offset = v_next[u.pt], bytes = x.bytes + u.length
            FROM (SELECT w.pt, sum(w.length) AS length FROM unnest(a_b_part, v_ext, a_b_length) w(pt, ext, length)
                WHERE w.ext > 0 GROUP BY w.pt) u
            WHERE x.topic_no = v_topic[a_part_topic[u.pt]] AND x.partition = a_part_no[u.pt];

        IF cardinality(a_producer) > 0 THEN
            INSERT INTO producer_partitions AS x (producer_id, topic_no, partition, accepted_at, epoch, last_sequence, recent)
                SELECT a_producer[a_stream_producer[u.s]], v_topic[a_part_topic[a_stream_part[u.s]]], a_part_no[a_stream_part[u.s]],
                        v_now, v_epoch[a_stream_producer[u.s]], (v_seq[u.s] - 1) & wrap,
                        u.recent[greatest(1, array_length(u.recent, 1) - 4) : array_length(u.recent, 1)]
                    FROM (SELECT w.s, array_agg(ARRAY[w.first, (w.first + w.records - 1) & wrap, w.base] ORDER BY w.ord) AS recent
                        FROM unnest(a_b_stream, v_ext, a_b_first, a_b_records, v_out) WITH ORDINALITY w(s, ext, first, records, base, ord)
                        WHERE w.ext > 0 AND w.s > 0 GROUP BY w.s) u
                ON CONFLICT (producer_id, topic_no, partition) DO UPDATE SET accepted_at = excluded.accepted_at,
                    epoch = excluded.epoch, last_sequence = excluded.last_sequence,
                    recent = CASE WHEN x.epoch <> excluded.epoch THEN excluded.recent
                        ELSE (x.recent || excluded.recent)[greatest(1, array_length(x.recent || excluded.recent, 1) - 4) :
                            array_length(x.recent || excluded.recent, 1)] END;
        END IF;

        -- Another commit of the producer may hold its row: then that one, or a
        -- later one, notes the time. Waiting for it could be a deadlock.
        IF cardinality(v_stale) > 0 THEN
            UPDATE producers x SET active_at = v_now WHERE x.producer_id IN (
                SELECT y.producer_id FROM producers y WHERE y.producer_id IN (
                    SELECT a_producer[a_stream_producer[u.s]] FROM unnest(a_b_stream, v_ext) u(s, ext) WHERE u.ext > 0 AND u.s > 0)
                AND y.producer_id = ANY (v_stale) FOR NO KEY UPDATE SKIP LOCKED);
        END IF;
    END IF;

    -- A replay writes too, so that its own durability covers the first commit.
    RETURN QUERY UPDATE segments x SET
            replays = CASE u.kind WHEN 2 THEN x.replays + 1 ELSE x.replays END,
            state = CASE WHEN u.kind = 2 THEN x.state WHEN u.live > 0 THEN 2 ELSE 3 END,
            state_at = CASE u.kind WHEN 2 THEN x.state_at ELSE v_now END,
            size_bytes = CASE u.kind WHEN 2 THEN x.size_bytes ELSE u.size END,
            crc32c = CASE u.kind WHEN 2 THEN x.crc32c ELSE u.crc END,
            live_extents = CASE u.kind WHEN 2 THEN x.live_extents ELSE u.live END,
            outcomes = CASE u.kind WHEN 2 THEN x.outcomes ELSE coalesce(v_out[1 + coalesce(a_seg_end[u.ord::integer - 1], 0) : a_seg_end[u.ord::integer]], '{}') END
        FROM unnest(a_seg, v_kind, v_live, a_seg_size, a_seg_crc) WITH ORDINALITY u(id, kind, live, size, crc, ord)
        WHERE x.segment_id = u.id AND u.kind > 0
        RETURNING u.ord::integer, x.outcomes;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION commit_segments;
