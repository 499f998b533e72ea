-- What the store is: one row.
CREATE TABLE atoll_store (
	one      boolean PRIMARY KEY DEFAULT true CHECK (one),
	format   integer NOT NULL, -- what a program must know to read and write the tables
	reader   text NOT NULL,    -- the first version of the program that does
	epoch    text NOT NULL,    -- names the history that revisions count
	revision bigint NOT NULL,  -- of the newest commit
	home     text NOT NULL     -- the cluster, database and table that this row was written in
);

-- What is stored. Text is compared byte by byte, as programs do.
CREATE TABLE atoll_rows (
	kind      text COLLATE "C" NOT NULL,
	mesh      text COLLATE "C" NOT NULL,
	zone      text COLLATE "C" NOT NULL,
	namespace text COLLATE "C" NOT NULL,
	name      text COLLATE "C" NOT NULL,
	revision  bigint NOT NULL, -- of the last write
	created   text NOT NULL,   -- RFC 3339 with nanoseconds, which no type of the database keeps
	modified  text NOT NULL,
	source    text NOT NULL,
	owner     text NOT NULL,
	labels    json,
	spec      bytea,           -- byte by byte as it was written
	PRIMARY KEY (kind, mesh, zone, namespace, name)
);

-- What each commit changed: the rows are these, folded.
CREATE TABLE atoll_changes (
	kind      text COLLATE "C" NOT NULL,
	mesh      text COLLATE "C" NOT NULL,
	zone      text COLLATE "C" NOT NULL,
	namespace text COLLATE "C" NOT NULL,
	name      text COLLATE "C" NOT NULL,
	revision  bigint NOT NULL,
	created   text NOT NULL,
	modified  text NOT NULL,
	source    text NOT NULL,
	owner     text NOT NULL,
	labels    json,
	spec      bytea,
	deleted   boolean NOT NULL,
	committed timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (revision, kind, mesh, zone, namespace, name)
);
