"""`migrate export`: what stands here, for another server or for a later return."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

from xmppd.admin.commands import USAGE
from xmppd.admin.progress import ProgressBar
from xmppd.config import Config
from xmppd.errors import CommandError
from xmppd.migrate.record import Losses
from xmppd.migrate.target import created
from xmppd.migrate.writers import WRITERS
from xmppd.migrating.given import Door, everything, of_names, record_of
from xmppd.migrating.report import LINES
from xmppd.migrating.shadowing import SEEN, TAKEN, Memory
from xmppd.migrating.times import moment

NAMES = 250
"""Accounts that are asked for at once."""
SHOWN = 20


def export(
    arguments: Mapping[str, Any], config: Config, reach: Callable[[], AbstractContextManager[Door]]
) -> tuple[Any, int]:
    """Write accounts to a file or folder that is not there yet; a summary."""
    name = arguments.get("format", "jsonl")
    make = WRITERS.get(name)
    if make is None:
        raise CommandError(f"--format is one of {', '.join(sorted(WRITERS))}, not {name}", USAGE)
    losses, count, contacts = Losses(), 0, 0
    bar = ProgressBar(sys.stderr, unit="accounts")
    with (
        reach() as door,
        closing(make(Path(arguments["target"]), arguments.get("dialect", ""), losses)) as writer,
    ):
        bar.begin("exporting")
        for row in wanted(door, arguments):
            account = record_of(row, losses)
            writer.write(account)
            count += 1
            contacts += len(account.roster)
            bar.advance(1)
        bar.end()
        removed = list_removed(door, arguments) if since_of(arguments) is not None else {}
    summary = {"accounts": count, "contacts": contacts, "lost": dict(losses.summary())}
    return {**summary, **removed, "written": str(arguments["target"])}, 0


def list_removed(door: Door, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Write what was removed here into a file beside the target; what the summary says of it."""
    target = Path(arguments["target"])
    file = target.with_name(f"{target.name}.removed.txt")
    shown: list[str] = []
    count = 0
    with created(file) as lines:
        for account in removed_here(door, arguments):
            lines.write(f"{account}\n".encode())
            count += 1
            if count <= SHOWN:
                shown.append(account)
    if not count:
        file.unlink()
        return {"removed here": 0}
    return {"removed here": count, "first removed": shown, "removed are listed in": str(file)}


def wanted(door: Door, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The accounts that were asked for."""
    only = arguments.get("only")
    rows = iter(of_names(door, only).values()) if only else everything(door)
    since = since_of(arguments)
    for row in rows:
        if is_asked_for(row["account"], arguments) and (since is None or is_changed(row, since)):
            yield row


def is_asked_for(account: str, arguments: Mapping[str, Any]) -> bool:
    """Whether it is one of `--only`, and of `--domain`."""
    only, domain = arguments.get("only"), arguments.get("domain")
    return (not only or account in only) and (not domain or account.endswith(f"@{domain}"))


def since_of(arguments: Mapping[str, Any]) -> float | None:
    """Since when changes count, in seconds since the epoch (0.0: all do); None where all accounts do."""
    if "changed_since" in arguments:
        return moment(arguments["changed_since"])
    return 0.0 if arguments.get("changed") else None


def is_changed(row: Mapping[str, Any], since: float) -> bool:
    """Whether an account is another one than an import left it, or was brought by none. Of rosters it is
    known when they changed last; all else that differs counts, whenever that was.
    """
    if row["ours"] is None:
        return True
    changed = int(row["state"].split()[1]) / 1000  # a roster's version is its last change at least
    return any(kind != "roster" or changed >= since for kind in row["ours"])


def removed_here(door: Door, arguments: Mapping[str, Any]) -> Iterator[str]:
    """The accounts that an import or a shadow brought, and that are not here any more."""
    runs = Path(door.call("migrate folder", {}))
    known = {row["run"] for row in door.call("migrate runs", {})}
    gone: set[str] = set()
    reports = [runs / run / LINES for run in sorted(known)]
    found = (account for report in reports if report.exists() for account in accounts_in(report))
    names = (account for account in chain(found, seen(runs)) if is_asked_for(account, arguments))
    while some := list(dict.fromkeys(islice(names, NAMES))):
        here = door.call("migrate states", {"account": some})
        for account in some:
            if account not in here and account not in gone:
                gone.add(account)
                yield account


def accounts_in(report: Path) -> Iterator[str]:
    """The accounts that a run has taken, by its report; a line that is cut off ends it."""
    with report.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n") and (row := json.loads(line)).get("done") in TAKEN:
                yield row["account"]


def seen(runs: Path) -> Iterator[str]:
    """The accounts that shadows have read."""
    if (runs / SEEN).exists():
        with closing(Memory(runs / SEEN)) as memory:
            yield from memory.all()
