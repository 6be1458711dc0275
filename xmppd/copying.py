"""Moving a whole installation from the store of one configuration into the store of another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from xmppd import log as logs
from xmppd.access.audit import AUDIT_LOG, DAY
from xmppd.access.audit import row_of as audit_row
from xmppd.admin.client import NoServer, request
from xmppd.admin.commands import Caller, Description, Parameter
from xmppd.admin.progress import ProgressBar
from xmppd.admin.socket import name_of
from xmppd.config import Config
from xmppd.engines import prepare_folder, store_of
from xmppd.errors import CommandError, StoreError
from xmppd.section import changed
from xmppd.store.comparison import Comparison, Findings
from xmppd.store.table import Store, Stored, Table
from xmppd.store.transfer import COPIES, COPY, Transfer
from xmppd.tables import tables_of

PATIENCE = 5.0
"""Seconds to wait for a server's answer."""


def copy_store(source: Config, target: Config, *, compare: bool, allow_running: bool) -> list[dict[str, Any]]:
    """Copy every table, go on with a copy that was cut short, and compare all rows; only that with `compare`.

    One mapping for each table. CommandError when something is in the way, or the stores differ; StoreError.
    """
    if store_name(source) == store_name(target):
        raise CommandError(f"both configurations have the same store: {store_name(source)}")
    if source.store.engine == "sqlite" and not source.store_path.exists():
        raise CommandError(f"there is no store to copy: {source.store_path}")
    if not allow_running:
        refuse_running(source, "source")
        refuse_running(target, "target")
    logs.configure(changed(target.log, level="warning"))
    prepare_folder(target)
    return asyncio.run(_copy(source, target, compare=compare))


async def _copy(source: Config, target: Config, *, compare: bool) -> list[dict[str, Any]]:
    tables = tables_of(source, target)
    progress = ProgressBar(sys.stderr)
    async with opened(source, tables) as old, opened(target, [*tables, COPIES]) as new:
        await check_source(old, tables)
        transfer = Transfer(old, new, tables, name=store_name(source), progress=progress, now=time.time)
        total = None if compare else await transfer.run()
        found = await Comparison(old, new, progress=progress, now=time.time).run(tables, total)
        report(found)
        if not compare:
            await transfer.forget()
            await note(source, target, (old, new))
    return [row_of(findings) for findings in found]


async def note(source: Config, target: Config, stores: Iterable[Store]) -> None:
    """Write into the audit log of both stores, which stay alike, that the one was copied into the other."""
    names = {"from": store_name(source), "to": store_name(target)}
    about = Description("store copy", "", tuple(Parameter(name, "str") for name in names))
    now = time.time()
    row = audit_row(about, names, Caller("offline", name_of(os.getuid())), now, "")
    row |= {"outcome": "done", "ended": now}
    key = tuple(row.pop(column) for column in AUDIT_LOG.key)
    for store in stores:
        try:
            await store.restore(AUDIT_LOG, [Stored(key, row, now + target.audit.days * DAY)])
        except StoreError as error:
            sys.stderr.write(f"warning: the audit log does not have this copy: {error}\n")


@contextlib.asynccontextmanager
async def opened(config: Config, tables: Sequence[Table]) -> AsyncIterator[Store]:
    """The store of a configuration, with `tables` made or migrated, for that is what is asked for."""
    store = store_of(config)
    try:
        await store.migrate(tables)
        await store.open(tables)
        yield store
    finally:
        await store.close()


async def check_source(store: Store, tables: Sequence[Table]) -> None:
    """Refuse a source that is itself half a copy; warn of tables that no plugin declares."""
    names = {table.name for table in tables}
    stored = [table.name for table in await store.stored_tables()]
    if COPIES.name in stored:
        await store.open([COPIES])
        static = await store.get_static(COPIES, COPY)
        if static is not None:
            raise CommandError(f"the source is an unfinished copy of {static['source']}: finish that first")
    left_out = [name for name in stored if name not in names and name != COPIES.name]
    if left_out:
        sys.stderr.write(
            f"warning: not copied, for no plugin of the configurations declares them: {', '.join(left_out)}\n"
        )


def refuse_running(config: Config, role: str) -> None:
    """CommandError when a server answers that writes to the store."""
    with contextlib.suppress(NoServer):
        request(config.socket_path, "status", {}, seconds=PATIENCE)
        raise CommandError(
            f"the server of the {role} is running (it answers at {config.socket_path}): stop it first"
        )


def store_name(config: Config) -> str:
    """What an operator calls the store, the same whoever asks."""
    if config.store.engine == "sqlite":
        return f"sqlite {config.store_path.absolute()}"
    cluster = config.store.cassandra
    return f"cassandra {cluster.keyspace} at {', '.join(cluster.contact_points)}"


def row_of(findings: Findings) -> dict[str, Any]:
    """What is shown of one table."""
    shown = asdict(findings)
    del shown["examples"]
    return shown


def report(found: Sequence[Findings]) -> None:
    """CommandError that says where the stores differ, if they do."""
    wrong = [findings for findings in found if not findings.is_equal]
    if wrong:
        lines = ["the target is not like the source:"]
        for findings in wrong:
            lines.append(
                f"  {findings.table}: {findings.missing} missing, {findings.different} different, "
                f"{findings.extra} too many"
            )
            lines += [f"    {example}" for example in findings.examples]
        raise CommandError("\n".join(lines))
