"""Making Cassandra's keyspace and tables from declarations, and moving old ones on.

The table `xmppd_schema` keeps what each table was last declared to be, with a version that counts its
changes. Who changes anything holds the row of `xmppd_lock`: two servers that start at once make every table
once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cassandra.cluster import Session
from cassandra.query import SimpleStatement

from xmppd.errors import StoreBug, StoreUnavailable
from xmppd.store._declaration import Declaration, as_text, merged, missing, table_of
from xmppd.store._turns import within
from xmppd.store.cassandra.cql import CqlTable
from xmppd.store.cassandra.link import Link
from xmppd.store.cassandra.options import CassandraOptions, Compaction
from xmppd.store.table import Table

log = logging.getLogger(__name__)

SCHEMA, LOCK = "xmppd_schema", "xmppd_lock"
OURS = (SCHEMA, LOCK)
LOCK_SECONDS = 60
"""How long a lock is held by one who died; making a table takes a tenth of a second."""
LOCK_PAUSE = 0.2
UNSEEN = 50
"""How often one of our own tables may seem not to be there."""
DDL_SECONDS = 20.0
WINDOWS = 20
"""Into how many windows of time the rows of a table with a TTL are sorted, at most."""


@dataclass(slots=True)
class Existing:
    """What is there: columns of tables (name -> type), what was recorded of them, how often it changed."""

    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    declarations: dict[str, Declaration] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    has_keyspace: bool = False


class Schema:
    """The tables of one keyspace."""

    def __init__(self, link: Link, options: CassandraOptions, program: str) -> None:
        self._link = link
        self._options = options
        self._program = program
        self._keyspace = options.keyspace

    async def missing(self, tables: Sequence[Table]) -> list[str]:
        """What has to be made for these declarations, in words; StoreBug if one cannot be."""
        there = await self.existing()
        if not there.has_keyspace:
            return [f"keyspace {self._keyspace}", *(f"table {table.name}" for table in tables)]
        return [thing for table in tables for thing in self._missing(table, there)]

    async def migrate(self, tables: Sequence[Table]) -> list[str]:
        """Make what is missing, and say in words what; StoreBug if some cannot be, and then none is."""
        there = await self.existing()
        if there.has_keyspace and not any(self._is_stale(table, there) for table in tables):
            return []
        await self._make_keyspace()
        holder = await within(LOCK_SECONDS * 2, self._lock())
        try:
            there = await self.existing()
            done = [thing for table in tables for thing in self._missing(table, there)]
            for table in tables:
                if self._is_stale(table, there):
                    await self._make(table, there)
        finally:
            await self._unlock(holder)
        await self._agree()
        for thing in done:
            log.info("store-migrated", extra={"made": thing})
        return done

    async def existing(self) -> Existing:
        """What is there now."""
        there = Existing()
        found = await self._ask(
            "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = %s", (self._keyspace,)
        )
        there.has_keyspace = bool(found)
        columns = await self._ask(
            "SELECT table_name, column_name, type, kind FROM system_schema.columns WHERE keyspace_name = %s",
            (self._keyspace,),
        )
        for table, column, kind, place in columns:
            suffix = " STATIC" if place == "static" else ""
            there.columns.setdefault(table, {})[column] = f"{kind}{suffix}"
        if SCHEMA in there.columns:
            for name, text, version in await self._ask_ours(
                f'SELECT name, declaration, version FROM "{self._keyspace}".{SCHEMA}'
            ):
                there.declarations[name] = json.loads(text)
                there.versions[name] = version
        return there

    def _missing(self, table: Table, there: Existing) -> list[str]:
        """What is missing, by what was recorded and by what is there: a creation may have been cut short."""
        recorded = there.declarations.get(table.name)
        merged(table, recorded)
        columns = there.columns.get(table.name)
        if columns is None:
            return [f"table {table.name}"]
        things = []
        for column, kind in CqlTable(self._keyspace, table).definitions().items():
            found = columns.get(column)
            if found is not None and found != kind:
                raise StoreBug(
                    f"table {table.name}: the column {column} is {found} in Cassandra and has to be {kind}: "
                    "somebody else made it, so use another keyspace"
                )
            if found is None:
                things.append(f"column {column} of table {table.name}")
        if not things and (recorded is None or missing(table, recorded)):
            things.append(f"record of table {table.name}")
        return things

    def _is_stale(self, table: Table, there: Existing) -> bool:
        """Whether something has to be made, or its declaration to be written anew: nobody waits for that."""
        recorded = there.declarations.get(table.name)
        return bool(self._missing(table, there)) or merged(table, recorded) != recorded

    async def _make(self, table: Table, there: Existing) -> None:
        """Create or extend one table, then record it. Whatever is done twice is done once."""
        cql = CqlTable(self._keyspace, table)
        columns = there.columns.get(table.name)
        if columns is None:
            await self._change(cql.create(self._compaction(table), {}))
        else:
            new = {column: kind for column, kind in cql.definitions().items() if column not in columns}
            if new:
                await self._change(cql.add(new))
        await self._agree()
        declaration = merged(table, there.declarations.get(table.name))
        version = there.versions.get(table.name, 0) + 1
        await self._ask_ours(
            f'INSERT INTO "{self._keyspace}".{SCHEMA} (name, declaration, version, changed, program) '
            "VALUES (%s, %s, %s, %s, %s)",
            (table.name, as_text(declaration), version, time.time(), self._program),
        )

    def _compaction(self, table: Table) -> Compaction:
        """How the files of a table are merged: by time where rows end by themselves, else as configured."""
        options = self._options
        if (own := options.compaction_tables.get(table.name)) is not None:
            return own
        if table.ttl is not None:
            return options.compaction_expiring or _windows(table.ttl)
        if options.compaction is not None:
            return options.compaction
        return (
            {"class": "UnifiedCompactionStrategy"} if self._is_5() else {"class": "LeveledCompactionStrategy"}
        )

    def _is_5(self) -> bool:
        """Whether every node has the strategies of Cassandra 5."""
        versions = [host.release_version or "0" for host in self._link.cluster.metadata.all_hosts()]
        return all(int(version.split(".")[0]) >= 5 for version in versions)

    async def stored(self) -> list[Table]:
        """All tables that are there, as they were last declared."""
        there = await self.existing()
        return [
            table_of(name, there.declarations[name])
            for name in sorted(there.declarations)
            if name in there.columns
        ]

    async def info(self) -> dict[str, Any]:
        """The cluster, the keyspace and its tables."""
        metadata = self._link.cluster.metadata
        there = await self.existing()
        sizes: dict[str, list[int]] = {}
        for name, count, mean in await self._ask(
            "SELECT table_name, partitions_count, mean_partition_size FROM system.size_estimates "
            "WHERE keyspace_name = %s",
            (self._keyspace,),
        ):
            size = sizes.setdefault(name, [0, 0])
            size[0] += count
            size[1] += count * mean
        keyspace = metadata.keyspaces.get(self._keyspace)
        strategy = None if keyspace is None else keyspace.replication_strategy.export_for_schema()
        return {
            "engine": "cassandra",
            "cluster": metadata.cluster_name,
            "keyspace": self._keyspace if there.has_keyspace else None,
            "replication": strategy,
            "nodes": [
                {
                    "address": str(host.endpoint),
                    "up": bool(host.is_up),
                    "data_centre": host.datacenter,
                    "rack": host.rack,
                    "version": host.release_version,
                }
                for host in sorted(metadata.all_hosts(), key=lambda host: str(host.endpoint))
            ],
            "tables": [
                {
                    "name": name,
                    "schema_version": there.versions.get(name),
                    "columns": sorted(there.columns[name]),
                    "partitions_estimated": sizes.get(name, [0, 0])[0],
                    "bytes_estimated": sizes.get(name, [0, 0])[1],
                }
                for name in sorted(there.columns)
                if name not in OURS
            ],
        }

    # the keyspace and our own tables

    async def _make_keyspace(self) -> None:
        there = await self.existing()
        if not there.has_keyspace:
            copies = dict(self._options.replication) or {self._options.local_dc: self._default_copies()}
            each = "".join(f", '{name}': {count}" for name, count in copies.items())
            await self._change(
                f'CREATE KEYSPACE IF NOT EXISTS "{self._keyspace}" '
                f"WITH replication = {{'class': 'NetworkTopologyStrategy'{each}}}"
            )
            log.info("keyspace-created", extra={"keyspace": self._keyspace, "replication": str(copies)})
        if LOCK not in there.columns:
            # Two who make it at once make the same one, because its id is given.
            table_id = uuid.uuid5(uuid.NAMESPACE_URL, f"xmppd:{self._keyspace}:{LOCK}")
            await self._change(
                f'CREATE TABLE IF NOT EXISTS "{self._keyspace}".{LOCK} '
                f"(name text PRIMARY KEY, holder text) WITH id = {table_id}"
            )
        await self._agree()

    def _default_copies(self) -> int:
        hosts = self._link.cluster.metadata.all_hosts()
        return min(3, sum(host.datacenter == self._options.local_dc for host in hosts)) or 1

    async def _lock(self) -> str:
        holder = uuid.uuid4().hex
        while True:
            found = await self._ask_ours(
                f'INSERT INTO "{self._keyspace}".{LOCK} (name, holder) VALUES (%s, %s) '
                f"IF NOT EXISTS USING TTL {LOCK_SECONDS}",
                ("schema", holder),
            )
            if found[0][0]:
                break
            await asyncio.sleep(LOCK_PAUSE)
        await self._change(
            f'CREATE TABLE IF NOT EXISTS "{self._keyspace}".{SCHEMA} '
            "(name text PRIMARY KEY, declaration text, version bigint, changed double, program text)"
        )
        return holder

    async def _unlock(self, holder: str) -> None:
        await self._ask_ours(
            f'DELETE FROM "{self._keyspace}".{LOCK} WHERE name = %s IF holder = %s', ("schema", holder)
        )

    # asking

    async def _ask_ours(self, text: str, values: Sequence[object] = ()) -> list[Any]:
        """Ask one of our own tables. Made a moment ago, perhaps by several, it may be listed by a node
        that does not have it yet.
        """
        for _ in range(UNSEEN):
            try:
                return await self._ask(text, values)
            except StoreBug as error:
                if "does not exist" not in str(error):
                    raise
            await asyncio.sleep(LOCK_PAUSE)
        return await self._ask(text, values)

    async def _ask(self, text: str, values: Sequence[object] = ()) -> list[Any]:
        def ask(session: Session) -> list[Any]:
            return list(session.execute(SimpleStatement(text), values or None))

        return await self._link.in_thread(ask)

    async def _change(self, text: str) -> None:
        def change(session: Session) -> None:
            session.execute(SimpleStatement(text), timeout=DDL_SECONDS)

        await self._link.in_thread(change)

    async def _agree(self) -> None:
        """Wait until all nodes that are up know the same tables; StoreUnavailable if they do not."""

        def agree(session: Session) -> bool:
            return bool(session.cluster.control_connection.wait_for_schema_agreement(wait_time=DDL_SECONDS))

        if not await self._link.in_thread(agree):
            raise StoreUnavailable("the nodes of Cassandra do not agree on their tables: try again later")


def _windows(ttl: float) -> Compaction:
    """Windows of time of which about `WINDOWS` are alive."""
    minutes = max(1, int(ttl / 60 / WINDOWS))
    for unit, length in (("DAYS", 1440), ("HOURS", 60), ("MINUTES", 1)):
        if minutes >= length:
            return {
                "class": "TimeWindowCompactionStrategy",
                "compaction_window_unit": unit,
                "compaction_window_size": str(minutes // length),
            }
    raise AssertionError("a window has at least one minute")
