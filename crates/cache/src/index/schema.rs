//! The tables, and how older ones become these.

/// One script per version of the index; `PRAGMA user_version` says how many were run. Never change one that was
/// released: add another.
pub(super) const MIGRATIONS: &[&str] = &[V1, V2, V3, V4];

const V1: &str = "
-- What a vertex yielded. Times are milliseconds since 1970.
CREATE TABLE records (
    id           INTEGER PRIMARY KEY,
    -- SHA-256 of `outputs`: the record's identity, so that the fast and the slow key of a vertex meet in one.
    outputs_hash BLOB NOT NULL UNIQUE,
    outputs      BLOB NOT NULL,
    name         TEXT NOT NULL,
    duration_ms  INTEGER NOT NULL,
    created      INTEGER NOT NULL,
    used         INTEGER NOT NULL,
    uses         INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The keys that find a record, each with the parts that it was made from, as JSON.
CREATE TABLE keys (
    key    BLOB PRIMARY KEY,
    record INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    parts  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_record ON keys (record);

-- What is known of a layer, whether its directory is there or not.
CREATE TABLE layers (
    id          BLOB PRIMARY KEY,
    diff_id     TEXT,
    -- What its directory takes on the disk, in bytes of whole blocks.
    disk_size   INTEGER,
    description TEXT NOT NULL,
    -- JSON, of those who make layers.
    extra       TEXT,
    created     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The blobs that unpack to a layer.
CREATE TABLE layer_blobs (
    layer      BLOB NOT NULL REFERENCES layers ON DELETE CASCADE,
    digest     TEXT NOT NULL,
    descriptor TEXT NOT NULL,
    -- What compressed it, with version and settings, when it was us.
    encoder    TEXT,
    PRIMARY KEY (layer, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_blobs_by_digest ON layer_blobs (digest);

-- Where a blob can be fetched from, as JSON.
CREATE TABLE blob_sources (
    digest TEXT NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (digest, source)
) STRICT, WITHOUT ROWID;

-- The local image store. An image without a name was built without one, or its name went to another.
CREATE TABLE images (
    id         INTEGER PRIMARY KEY,
    name       TEXT UNIQUE,
    digest     TEXT NOT NULL,
    descriptor TEXT NOT NULL,
    created    INTEGER NOT NULL
) STRICT;
CREATE INDEX images_by_digest ON images (digest);
";

const V2: &str = "
-- Files that were fetched by HTTP, by what was asked for; they go with their layers.
CREATE TABLE downloads (
    id            BLOB PRIMARY KEY,
    -- As the server wrote them, to be asked with.
    etag          TEXT,
    last_modified TEXT,
    content       TEXT NOT NULL,
    -- Seconds since 1970.
    modified      INTEGER,
    layer         BLOB NOT NULL REFERENCES layers ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX downloads_by_layer ON downloads (layer);
";

const V3: &str = "
-- Whether the blob was read, and was the layer. Else it is what the manifest of some image says.
ALTER TABLE layer_blobs ADD COLUMN verified INTEGER NOT NULL DEFAULT 0;
";

const V4: &str = "
-- What somebody has found out about the packages in a layer, in the form of that reader.
CREATE TABLE layer_packages (
    layer    BLOB PRIMARY KEY REFERENCES layers ON DELETE CASCADE,
    reader   TEXT NOT NULL,
    packages TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";
