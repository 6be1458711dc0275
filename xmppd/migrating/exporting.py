"""`migrate export`: what stands here, for another server or for a later return."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from xmppd.admin.commands import USAGE
from xmppd.admin.progress import ProgressBar
from xmppd.config import Config
from xmppd.errors import CommandError
from xmppd.migrate.record import Losses
from xmppd.migrate.writers import WRITERS
from xmppd.migrating.given import Door, everything, of_names, record_of
from xmppd.migrating.times import moment


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
    summary = {"accounts": count, "contacts": contacts, "lost": dict(losses.summary())}
    return {**summary, "written": str(arguments["target"])}, 0


def wanted(door: Door, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The accounts that were asked for."""
    only = arguments.get("only")
    domain = arguments.get("domain")
    since = moment(arguments["changed_since"]) if "changed_since" in arguments else None
    rows = iter(of_names(door, only).values()) if only else everything(door)
    for row in rows:
        if domain and not row["account"].endswith(f"@{domain}"):
            continue
        changed = int(row["state"].split()[1]) / 1000  # a roster's version is its last change at least
        if since is not None and max(changed, row["created"] or 0.0) < since:
            continue
        yield row
