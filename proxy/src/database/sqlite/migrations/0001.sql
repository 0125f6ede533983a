-- The schema of the first release.
--
-- Texts that came from outside (tokens, captures, queries, user agents, referrers) are escaped:
-- valid UTF-8 without control characters stays as it is, `\` is `\\`, any other byte is `\xHH`.
-- Times are milliseconds since 1970-01-01T00:00:00Z, but for updated_at, which is in microseconds.

CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- The newest updated_at that was given to a link.
INSERT INTO meta VALUES ('links_clock', 0);

-- What each token leads to. updated_at belongs to the triggers below; leave it out when writing.
CREATE TABLE links (
    namespace TEXT NOT NULL,
    token TEXT NOT NULL,
    url TEXT NOT NULL,
    campaign TEXT NOT NULL DEFAULT '',
    append INTEGER NOT NULL DEFAULT 1 CHECK (append IN (0, 1)),
    expires_at INTEGER CONSTRAINT expires_at_in_unix_milliseconds CHECK (expires_at >= 100000000000),
    disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    deleted INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
    updated_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (namespace, token)
) STRICT, WITHOUT ROWID;

CREATE INDEX links_updated_at ON links (updated_at);

-- Every change gets an updated_at above all earlier ones, whatever the clock does, so whoever asks
-- for `updated_at > what I saw last` misses nothing. julianday() is what old sqlite3 shells know.
CREATE TRIGGER links_inserted AFTER INSERT ON links
BEGIN
    UPDATE meta SET value = max(value + 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000)
        WHERE key = 'links_clock';
    UPDATE links SET updated_at = (SELECT value FROM meta WHERE key = 'links_clock')
        WHERE namespace = NEW.namespace AND token = NEW.token;
END;

CREATE TRIGGER links_updated
AFTER UPDATE OF namespace, token, url, campaign, append, expires_at, disabled, deleted ON links
BEGIN
    UPDATE meta SET value = max(value + 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000)
        WHERE key = 'links_clock';
    UPDATE links SET updated_at = (SELECT value FROM meta WHERE key = 'links_clock')
        WHERE namespace = NEW.namespace AND token = NEW.token;
END;

-- Nobody sets updated_at by hand: a value in the future would hide every change up to that time.
CREATE TRIGGER links_clock_kept AFTER UPDATE OF updated_at ON links
WHEN NEW.updated_at <> (SELECT value FROM meta WHERE key = 'links_clock')
BEGIN
    UPDATE meta SET value = max(value + 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000)
        WHERE key = 'links_clock';
    UPDATE links SET updated_at = (SELECT value FROM meta WHERE key = 'links_clock')
        WHERE namespace = NEW.namespace AND token = NEW.token;
END;

-- A deleted link leaves a tombstone, and so does the old name of a renamed one.
-- Deleting a tombstone removes it for good.
CREATE TRIGGER links_deleted AFTER DELETE ON links
WHEN OLD.deleted = 0
BEGIN
    INSERT INTO links (namespace, token, url, campaign, deleted)
        VALUES (OLD.namespace, OLD.token, '', OLD.campaign, 1);
END;

CREATE TRIGGER links_renamed AFTER UPDATE OF namespace, token ON links
WHEN OLD.namespace <> NEW.namespace OR OLD.token <> NEW.token
BEGIN
    INSERT INTO links (namespace, token, url, campaign, deleted)
        VALUES (OLD.namespace, OLD.token, '', OLD.campaign, 1);
END;

-- Every journal that was ever delivered here, and the small number that stands for it below.
CREATE TABLE journals (
    id INTEGER NOT NULL PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    edge TEXT NOT NULL,
    opened_at INTEGER NOT NULL
) STRICT;

-- A rowid table: rows are far larger than a twentieth of a page, and arrive in key order.
CREATE TABLE hits (
    journal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    at INTEGER NOT NULL,
    host TEXT NOT NULL,
    site TEXT NOT NULL,
    namespace TEXT NOT NULL,
    kind TEXT NOT NULL,
    token TEXT NOT NULL,
    campaign TEXT NOT NULL,
    captures TEXT NOT NULL,
    query TEXT NOT NULL,
    method TEXT NOT NULL,
    status INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    class TEXT NOT NULL,
    url TEXT NOT NULL,
    address TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    referrer TEXT NOT NULL,
    verdict TEXT NOT NULL,
    PRIMARY KEY (journal, sequence)
) STRICT;

-- Up to which sequence this database has everything of a journal.
CREATE TABLE cursors (
    journal INTEGER NOT NULL PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT;

-- One row per batch, written in its transaction; first to last is the span that it accounts for.
CREATE TABLE batches (
    journal INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE INDEX batches_span ON batches (journal, first);

-- Hits that could not be stored for what they are; event holds the bytes as the journal has them.
CREATE TABLE rejected (
    journal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    event BLOB NOT NULL,
    PRIMARY KEY (journal, sequence)
) STRICT;
