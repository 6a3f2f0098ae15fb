-- Why: an offer that waits is to say since when the same stands in its way, also after a restart and whoever answers. So
-- what stands in its way is kept with it, and noted as new when that becomes other.

CREATE TABLE explanations (
    developer_offer TEXT   NOT NULL PRIMARY KEY,
    -- JSON, as the API answers it.
    explanation     TEXT   NOT NULL,
    -- Block at which it first said what it says, counts apart.
    since_block     BIGINT NOT NULL,
    -- Block at which it was last found.
    seen_block      BIGINT NOT NULL
);
