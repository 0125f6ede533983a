-- Which edge orders a certificate for a name, and what it was issued, for the others. A name is taken
-- until lease_until. sealed is encrypted under a key that only edges with the same account have.
CREATE TABLE @schema@.orders (
    name text COLLATE "C" NOT NULL PRIMARY KEY,
    holder text NOT NULL,
    lease_until timestamptz NOT NULL,
    sealed bytea
);
