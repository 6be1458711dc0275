"""What each format carries over of the samples, as a table for the documentation."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from truth import SAMPLES, differences, truth, unpacked

from xmppd.migrate.detect import open_source
from xmppd.migrate.record import Account, Unreadable
from xmppd.migrate.source import Options

FIELDS: Final = (
    "accounts", "passwords", "contacts", "states", "names", "groups", "approved", "requests", "their text",
    "their nick", "vCard", "private XML", "messages", "blocks", "last logout", "created",
)  # fmt: skip
"""The columns: `requests` are counted by who asks, `messages` and `blocks` by account."""


@dataclass(frozen=True)
class Sample:
    """One kind of export: its name in the table, and its parts as (path below the samples, domain). `lacks`
    are fields of which the sample has nothing, though the format may.
    """

    name: str
    parts: tuple[tuple[str, str], ...]
    is_partial: bool = False
    lacks: tuple[str, ...] = ()


def of_hosts(folder: str) -> tuple[tuple[str, str], ...]:
    """A file for each host."""
    return tuple((f"{folder}/{host}.sql", host) for host in ("chat.example", "games.example"))


EXPORTS: Final = (
    Sample("Prosody, data folder", (("prosody-0.12.3/internal-sha1/data", ""),)),
    Sample("Prosody, SQL", (("prosody-0.12.3/sqlite-sha256/prosody.sql", ""),)),
    Sample("Prosody, XEP-0227", (("prosody-0.12.3/xep0227-from-internal-plain", ""),)),
    Sample("ejabberd, `dump`", (("ejabberd-23.01/mnesia-sha1/dump/mnesia.dump", ""),)),
    Sample("ejabberd, SQL", of_hosts("ejabberd-23.01/sqlite-old-schema-sha256/sql")),
    Sample("ejabberd, `export2sql`", of_hosts("ejabberd-23.01/mnesia-sha1/export2sql")),
    Sample("ejabberd, `export_piefxis`", (("ejabberd-23.01/mnesia-sha1/piefxis", ""),)),
    Sample(
        "MongooseIM, SQL",
        (("mongooseim-by-hand/mongooseim.sql", ""),),
        is_partial=True,
        lacks=("vCard", "private XML", "messages"),
    ),
    Sample(
        "Openfire, SQL",
        (("openfire-by-hand/openfire.sql", "chat.example"),),
        is_partial=True,
        lacks=("private XML",),
    ),
    Sample("Openfire, plugin", (("openfire-by-hand/openfire-plugin.xml", "chat.example"),), is_partial=True),
    Sample(
        "Openfire, plugin, XEP-0227",
        (("openfire-by-hand/openfire-plugin-xep0227.xml", "chat.example"),),
        is_partial=True,
    ),
)
"""Those made by hand have some of the accounts only."""


class Tally:
    """How much of a field there is, and what became of it."""

    def __init__(self) -> None:
        self.total = self.lost = self.changed = 0

    def count(self, found: Any) -> None:
        """One more that is not as it was: gone, or another."""
        if found in (None, "", [], ()):
            self.lost += 1
        else:
            self.changed += 1

    def __str__(self) -> str:
        """The verdict."""
        if not self.total:
            return ""
        if self.lost == self.total:
            return "no"
        said = "yes" if not self.lost else f"{self.total - self.lost} of {self.total}"
        return f"{said}, {self.changed} changed" if self.changed else said


def table(scratch: Path) -> str:
    """The table in Markdown."""
    lines = [f"| format | {' | '.join(FIELDS)} |", "|---" * (len(FIELDS) + 1) + "|"]
    for sample in EXPORTS:
        verdicts = verdicts_of(sample, scratch)
        lines.append(f"| {sample.name} | {' | '.join(str(verdicts[field]) for field in FIELDS)} |")
    return "\n".join(lines) + "\n"


def verdicts_of(sample: Sample, scratch: Path) -> dict[str, Tally]:
    """What one export carries, by field."""
    found = [account for path, domain in sample.parts for account in read(SAMPLES / path, domain, scratch)]
    wanted = truth()
    if sample.is_partial:
        names = {account.name for account in found}
        wanted = {name: row for name, row in wanted.items() if name in names}
    tallies = {field: Tally() for field in FIELDS}
    for row in wanted.values():
        _count_all(row, tallies)
    for difference in differences(found, wanted):
        _count_difference(difference, wanted.get(difference["account"], {}), tallies)
    for field in sample.lacks:
        tallies[field] = Tally()
    accounts = [account for account in found if isinstance(account, Account)]
    for field, dates in (
        ("last logout", [account.last for account in accounts]),
        ("created", [account.created for account in accounts]),
    ):
        tallies[field].total = int(any(dates))  # the truth has none
    return tallies


def read(path: Path, domain: str, scratch: Path) -> list[Account | Unreadable]:
    """All accounts of an export."""
    if (path / "documents.jsonl").exists():
        path = unpacked(path, scratch / path.name)
    with closing(open_source(path, options=Options(domain=domain, scratch=scratch))) as reader:
        return list(reader)


def _count_all(row: Mapping[str, Any], tallies: Mapping[str, Tally]) -> None:
    """What one account of the truth has."""
    items = row["roster"]
    requests = row.get("requests", ())
    for field, count in (
        ("accounts", 1),
        ("passwords", 1),
        ("contacts", len(items)),
        ("states", len(items)),
        ("names", sum(bool(item["name"]) for item in items)),
        ("groups", sum(bool(item["groups"]) for item in items)),
        ("approved", sum(bool(item["approved"]) for item in items)),
        ("requests", len(requests)),
        ("their text", sum(bool(request.get("status")) for request in requests)),
        ("their nick", sum(bool(request.get("nick")) for request in requests)),
        ("vCard", bool(row.get("vcard"))),
        ("private XML", len(row.get("private", ()))),
        ("messages", bool(row.get("offline"))),
        ("blocks", bool(row.get("blocked"))),
    ):
        tallies[field].total += count


WHOLE: Final = {"vcard": "vCard", "private": "private XML", "offline": "messages", "blocked": "blocks"}
OF_ITEM: Final = {"subscription": "states", "ask": "states", "name": "names", "groups": "groups"}
OF_REQUEST: Final = {"status": "their text", "nick": "their nick"}


def _count_difference(
    difference: Mapping[str, Any], row: Mapping[str, Any], tallies: Mapping[str, Tally]
) -> None:
    what, field, found = difference["what"], difference.get("field"), difference.get("found")
    if what == "account":
        tallies["accounts"].count(found if row else "another")
    elif what == "password":
        if not is_prepared(difference):
            tallies["passwords"].count(None)
    elif what == "roster" and field is not None:
        tallies[OF_ITEM.get(field, field)].count(found or None)  # not approved is nothing
    elif what == "roster":
        _count_item(difference.get("expected"), tallies)
    elif what == "requests" and field is not None:
        tallies[OF_REQUEST[field]].count(found)
    elif what == "requests":
        _count_request(difference, row, tallies)
    else:
        tallies[WHOLE[what]].count(found)


def is_prepared(difference: Mapping[str, Any]) -> bool:
    """Whether it is the password in the form that old servers hash, with which logins work here, too."""
    typed, found = difference.get("expected"), difference.get("found")
    form = unicodedata.normalize("NFKC", typed).replace("\xad", "") if typed else None
    return str(found).endswith(": NFKC") or found == form


def _count_item(expected: Mapping[str, Any] | None, tallies: Mapping[str, Tally]) -> None:
    """An item that is missing takes all it has with it; one too many is a change."""
    if expected is None:
        tallies["contacts"].changed += 1
        return
    for field, has in (
        ("contacts", True),
        ("states", True),
        ("names", expected["name"]),
        ("groups", expected["groups"]),
        ("approved", expected["approved"]),
    ):
        tallies[field].lost += bool(has)


def _count_request(
    difference: Mapping[str, Any], row: Mapping[str, Any], tallies: Mapping[str, Tally]
) -> None:
    if difference.get("expected") is None:
        tallies["requests"].changed += 1
        return
    [request] = [request for request in row.get("requests", ()) if request["from"] == difference["of"]]
    tallies["requests"].lost += 1
    tallies["their text"].lost += bool(request.get("status"))
    tallies["their nick"].lost += bool(request.get("nick"))
