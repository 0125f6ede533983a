-- The table of customers' domains is followed from here on. revision and updated_at belong to the triggers
-- below; leave them out when writing.
ALTER TABLE @schema@.domains ADD COLUMN revision xid8 NOT NULL DEFAULT pg_current_xact_id();

CREATE INDEX domains_revision ON @schema@.domains (revision);

-- What writes to links.revision and links.updated_at knows nothing of links.
CREATE TRIGGER domains_revise BEFORE INSERT OR UPDATE ON @schema@.domains
    FOR EACH ROW EXECUTE FUNCTION @schema@.links_revise();

-- A deleted domain leaves a tombstone, and so does the old name of a renamed one.
-- Deleting a tombstone removes it for good.
CREATE FUNCTION @schema@.domains_bury() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO @schema@.domains (host, site, namespace, deleted)
        VALUES (OLD.host, OLD.site, OLD.namespace, true)
        ON CONFLICT (host) DO NOTHING;
    RETURN NULL;
END $$;

CREATE TRIGGER domains_deleted AFTER DELETE ON @schema@.domains
    FOR EACH ROW WHEN (NOT OLD.deleted) EXECUTE FUNCTION @schema@.domains_bury();

CREATE TRIGGER domains_renamed AFTER UPDATE OF host ON @schema@.domains
    FOR EACH ROW WHEN (OLD.host <> NEW.host) EXECUTE FUNCTION @schema@.domains_bury();

-- On the channel of links, for whoever listens looks at both.
CREATE TRIGGER domains_tell AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @schema@.domains
    FOR EACH STATEMENT EXECUTE FUNCTION @schema@.links_tell();
