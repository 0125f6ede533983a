-- The schema of the first release. @schema@ stands for the name of the schema that holds it.
--
-- Texts that came from outside (tokens, captures, queries, user agents, referrers) are escaped:
-- valid UTF-8 without control characters stays as it is, `\` is `\\`, any other byte is `\xHH`.

CREATE TABLE @schema@.meta (
    key text NOT NULL PRIMARY KEY,
    value text NOT NULL
);

-- What each token leads to. Keys are compared by their bytes. revision and updated_at belong to the
-- triggers below; leave them out when writing.
CREATE TABLE @schema@.links (
    namespace text COLLATE "C" NOT NULL,
    token text COLLATE "C" NOT NULL,
    url text NOT NULL,
    campaign text NOT NULL DEFAULT '',
    append boolean NOT NULL DEFAULT true,
    expires_at timestamptz,
    disabled boolean NOT NULL DEFAULT false,
    deleted boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- The transaction that wrote the row last: whoever asks for those that were not finished when
    -- it looked last misses nothing, however long a transaction took.
    revision xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (namespace, token)
);

-- With the key behind it, for a transaction of millions of rows is read in portions.
CREATE INDEX links_revision ON @schema@.links (revision, namespace, token);

CREATE FUNCTION @schema@.links_revise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := pg_current_xact_id();
    NEW.updated_at := now();
    RETURN NEW;
END $$;

CREATE TRIGGER links_revise BEFORE INSERT OR UPDATE ON @schema@.links
    FOR EACH ROW EXECUTE FUNCTION @schema@.links_revise();

-- A deleted link leaves a tombstone, and so does the old name of a renamed one.
-- Deleting a tombstone removes it for good.
CREATE FUNCTION @schema@.links_bury() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO @schema@.links (namespace, token, url, campaign, deleted)
        VALUES (OLD.namespace, OLD.token, '', OLD.campaign, true)
        ON CONFLICT (namespace, token) DO NOTHING;
    RETURN NULL;
END $$;

CREATE TRIGGER links_deleted AFTER DELETE ON @schema@.links
    FOR EACH ROW WHEN (NOT OLD.deleted) EXECUTE FUNCTION @schema@.links_bury();

CREATE TRIGGER links_renamed AFTER UPDATE OF namespace, token ON @schema@.links
    FOR EACH ROW WHEN (OLD.namespace <> NEW.namespace OR OLD.token <> NEW.token)
    EXECUTE FUNCTION @schema@.links_bury();

-- One notification per statement: one per row would make writers wait for each other.
CREATE FUNCTION @schema@.links_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('holdfast_links', '');
    RETURN NULL;
END $$;

CREATE TRIGGER links_tell AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @schema@.links
    FOR EACH STATEMENT EXECUTE FUNCTION @schema@.links_tell();

-- Hosts of customers, who come and go daily.
CREATE TABLE @schema@.domains (
    host text COLLATE "C" NOT NULL PRIMARY KEY,
    site text NOT NULL,
    namespace text COLLATE "C" NOT NULL DEFAULT '',
    brand json NOT NULL DEFAULT '{}',
    disabled boolean NOT NULL DEFAULT false,
    deleted boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Every journal that was ever delivered here, and the small number that stands for it below.
CREATE TABLE @schema@.journals (
    id integer NOT NULL PRIMARY KEY,
    uuid uuid NOT NULL UNIQUE,
    edge text NOT NULL,
    opened_at timestamptz NOT NULL
);

CREATE TABLE @schema@.hits (
    journal integer NOT NULL,
    sequence bigint NOT NULL,
    at timestamptz NOT NULL,
    host text NOT NULL,
    site text NOT NULL,
    namespace text NOT NULL,
    kind text NOT NULL,
    token text NOT NULL,
    campaign text NOT NULL,
    captures json NOT NULL,
    query text NOT NULL,
    method text NOT NULL,
    status smallint NOT NULL,
    outcome text NOT NULL,
    class text NOT NULL,
    url text NOT NULL,
    address inet,
    user_agent text NOT NULL,
    referrer text NOT NULL,
    verdict text NOT NULL,
    PRIMARY KEY (journal, sequence)
);

-- Up to which sequence this database has everything of a journal.
CREATE TABLE @schema@.cursors (
    journal integer NOT NULL PRIMARY KEY,
    sequence bigint NOT NULL
);

-- One row per batch, written in its transaction; first to last is the span that it accounts for.
CREATE TABLE @schema@.batches (
    journal integer NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    rows bigint NOT NULL,
    rejected bigint NOT NULL,
    at timestamptz NOT NULL
);

CREATE INDEX batches_span ON @schema@.batches (journal, first);
CREATE INDEX batches_end ON @schema@.batches (journal, last);

-- Hits that could not be stored for what they are; event holds the bytes as the journal has them.
CREATE TABLE @schema@.rejected (
    journal integer NOT NULL,
    sequence bigint NOT NULL,
    at timestamptz NOT NULL,
    reason text NOT NULL,
    event bytea NOT NULL,
    PRIMARY KEY (journal, sequence)
);
