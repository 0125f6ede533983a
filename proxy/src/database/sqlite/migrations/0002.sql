-- Hosts of customers, who come and go daily. brand is a JSON object with what differs from the site's look.
-- updated_at belongs to the triggers below; leave it out when writing.
CREATE TABLE domains (
    host TEXT NOT NULL PRIMARY KEY,
    site TEXT NOT NULL,
    namespace TEXT NOT NULL DEFAULT '',
    brand TEXT NOT NULL DEFAULT '{}',
    disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    deleted INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
    updated_at INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Moves with every change, so whoever looks reads the table only when it changed.
INSERT INTO meta VALUES ('domains_clock', 0);

CREATE TRIGGER domains_inserted AFTER INSERT ON domains
BEGIN
    UPDATE meta SET value = max(value + 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000)
        WHERE key = 'domains_clock';
    UPDATE domains SET updated_at = (SELECT value FROM meta WHERE key = 'domains_clock') WHERE host = NEW.host;
END;

CREATE TRIGGER domains_updated AFTER UPDATE OF host, site, namespace, brand, disabled, deleted ON domains
BEGIN
    UPDATE meta SET value = max(value + 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000)
        WHERE key = 'domains_clock';
    UPDATE domains SET updated_at = (SELECT value FROM meta WHERE key = 'domains_clock') WHERE host = NEW.host;
END;

-- A deleted domain leaves a tombstone, and so does the old name of a renamed one.
-- Deleting a tombstone removes it for good.
CREATE TRIGGER domains_deleted AFTER DELETE ON domains
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = 'domains_clock';
    INSERT INTO domains (host, site, namespace, deleted)
        SELECT OLD.host, OLD.site, OLD.namespace, 1 WHERE OLD.deleted = 0;
END;

CREATE TRIGGER domains_renamed AFTER UPDATE OF host ON domains
WHEN OLD.host <> NEW.host
BEGIN
    INSERT INTO domains (host, site, namespace, deleted) VALUES (OLD.host, OLD.site, OLD.namespace, 1);
END;
