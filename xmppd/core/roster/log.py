"""The operation log of rosters: who changed which item when, and how it stood before and after.

An entry is a row in the partition of its roster, written with the change itself. It lives for a while, and
the log is bounded: whoever repeats changes without end does not fill the partition.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from xmppd.core.roster.item import LOG, RosterItem, item_from, value_of
from xmppd.store.table import Put, Row

ENTRIES_A_DAY = 250
"""How many entries of one account all nodes write in a day for the account's own changes, and as many for
those that others cause. Changes beyond that are made and not logged.
"""

REQUEST_BYTES = 512
"""The longest request that an entry keeps: a longer one is undone without what it held."""

ENTRY_LETTERS = 2048
"""The longest entry with its items in it; a longer one only says who, when and what."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One change that made `version` of the version `before`, `at` seconds since the epoch.

    `by` is who did it: a full or bare JID, or a word such as "admin". `what` says what was done: "set",
    "remove", or a subscription's type with "sent" or "received" before it. `old` and `new` are the item
    (None: there was none); unless `is_whole` they were too long to be kept.
    """

    version: int
    before: int
    at: float
    by: str
    what: str
    contact: str
    old: RosterItem | None
    new: RosterItem | None
    is_whole: bool = True

    def put(self, ttl: float) -> Put:
        """The write of the entry's row, to live for `ttl` seconds."""
        text = self._text(whole=self.is_whole)
        if len(text) > ENTRY_LETTERS:
            text = self._text(whole=False)
        return Put({"part": LOG, "name": version_name(self.version), "value": text}, ttl=ttl)

    def _text(self, *, whole: bool) -> str:
        fields = {
            "before": self.before,
            "at": self.at,
            "by": self.by,
            "what": self.what,
            "contact": self.contact,
        }
        if whole:
            fields |= {"old": _packed(self.old), "new": _packed(self.new)}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def entry_of(row: Row) -> LogEntry:
    """The entry in a row of the part `LOG`."""
    fields = json.loads(row["value"])
    contact = fields["contact"]
    return LogEntry(
        version=int(row["name"]),
        before=fields["before"],
        at=fields["at"],
        by=fields["by"],
        what=fields["what"],
        contact=contact,
        old=_item(contact, fields.get("old")),
        new=_item(contact, fields.get("new")),
        is_whole="new" in fields,
    )


def version_name(version: int) -> str:
    """A version as the name of its row: sorted as text, they are sorted as numbers."""
    return f"{version:016}"


def _packed(item: RosterItem | None) -> str | None:
    if item is None:
        return None
    return value_of(replace(item, request=b"") if len(item.request) > REQUEST_BYTES else item)


def _item(contact: str, value: str | None) -> RosterItem | None:
    return None if value is None else item_from(contact, value)
