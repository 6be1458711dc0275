"""`migrate verify`: a source against what stands here, account by account and contact by contact."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from xmppd.admin.commands import FAILED
from xmppd.admin.progress import ProgressBar
from xmppd.arriving import loaded
from xmppd.core.accounts import ACCOUNT
from xmppd.core.credentials import keys_in
from xmppd.core.digest import digest
from xmppd.core.roster.item import item_from
from xmppd.core.roster.rewriting import Packed
from xmppd.migrate.record import Keys
from xmppd.migrate.scratch import Scratch
from xmppd.migrating.feed import Batch, Feed, Wanted
from xmppd.migrating.given import Door, keys_of, names_here, of_names, pieces
from xmppd.migrating.halves import BOTH, HERE, SOURCE, Halves, compare
from xmppd.seeing.spans import step
from xmppd.stream.forms import scram_form
from xmppd.stream.scram import BadPassword, derive_keys

FIELDS = ("subscription", "ask", "pending_in", "approved", "name", "groups", "request", "hidden")
PARTS = ("vcard", "private", "offline", "blocks", "last")
MORE = 50
"""Accounts that only stand here, asked for at once."""
SHOWN = 20
"""Differences that the summary shows."""

Difference = dict[str, Any]


class Verified:
    """Which accounts were found the same before, by the hash of what the source had and the version of what
    stood here: so a second run need not look at them again. A file, made anew where it is of no use.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = off")
        self._database.execute(
            "create table if not exists verified (account text primary key, mark text) without rowid"
        )

    def marks(self, accounts: Sequence[str]) -> dict[str, str]:
        """Those that are known of these accounts."""
        places = ",".join("?" * len(accounts))
        query = f"select account, mark from verified where account in ({places})"
        return dict(self._database.execute(query, accounts))

    def note(self, marks: Mapping[str, str]) -> None:
        """These are the same."""
        self._database.execute("begin")
        self._database.executemany("replace into verified values (?, ?)", marks.items())
        self._database.execute("commit")

    def close(self) -> None:
        """Done."""
        self._database.close()


class Names(Scratch):
    """Accounts that were there, as hashes, in a file: they may be millions."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "create table name (hash integer primary key)")

    def add(self, names: Iterable[str]) -> None:
        """These are there."""
        self.write("insert or ignore into name values (?)", ((hash(name),) for name in names))

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of some names that were not."""
        return [name for name in names if not self._has(name)]

    def _has(self, name: str) -> bool:
        found = self.run("select 1 from name where hash = ?", (hash(name),)).fetchone()
        return found is not None


class Verification:
    """One comparison. `found` is told of each difference."""

    def __init__(
        self,
        door: Door,
        verified: Verified,
        found: Callable[[Difference], None],
        halves: Halves,
        names: Names,
        *,
        full: bool,
    ) -> None:
        self._door = door
        self._verified = verified
        self._found = found
        self._halves = halves
        self._names = names
        self._full = full
        self.counts: Counter[str] = Counter()
        self.domains: set[str] = set()

    def compare(self, batch: Batch) -> None:
        """Some accounts of the source."""
        for row in batch.rows:
            self.counts["accounts"] += 1
            if "done" in row:
                self.counts[row["done"]] += 1
                self._tell({"account": row["name"], "what": row["done"], "why": row.get("why", "")})
        with batch.file.open("rb") as lines:
            arrivals = [loaded(line) for line in lines]
        names = [arrival["account"] for arrival in arrivals]
        self._names.add(names)
        self.domains.update(name.rpartition("@")[2] for name in names)
        self._compare(arrivals)

    def _compare(self, arrivals: Sequence[Mapping[str, Any]]) -> None:
        names = [arrival["account"] for arrival in arrivals]
        hashes = {
            arrival["account"]: digest([arrival["hashes"], arrival["disabled"]]) for arrival in arrivals
        }
        known = self._verified.marks(names) if not self._full else {}
        states = states_of(self._door, [name for name in names if name in known])
        rest = []
        for arrival in arrivals:
            name = arrival["account"]
            if name in states and known.get(name) == f"{hashes[name]} {states[name]}":
                self.counts["same as before"] += 1
                self._halves.add(name, arrival["parts"].get("roster", ()), BOTH)
            else:
                rest.append(arrival)
        given = of_names(self._door, [arrival["account"] for arrival in rest])
        same = {}
        for arrival in rest:
            name = arrival["account"]
            row = given.get(name)
            differences = (
                list(compared(arrival, row)) if row is not None else [{"what": "account", "here": None}]
            )
            for difference in differences:
                self._tell({"account": name, **difference})
            self.counts["differ" if differences else "same"] += 1
            self._halves.add(name, arrival["parts"].get("roster", ()), SOURCE if differences else BOTH)
            if row is not None and differences:
                self._halves.add(name, row["parts"].get("roster", ()), HERE)
            if row is not None and not differences:
                same[name] = f"{hashes[name]} {row['state']}"
        self._verified.note(same)

    def look_for_more(self) -> None:
        """What is here on the source's domains, and not in the source."""
        here = (name for name in names_here(self._door) if name.rpartition("@")[2] in self.domains)
        while names := list(islice(here, MORE)):
            some = self._names.missing(names)
            given = of_names(self._door, some)
            for name in some:
                self.counts["only here"] += 1
                self._tell({"account": name, "what": "account", "source": None})
                if name in given:
                    self._halves.add(name, given[name]["parts"].get("roster", ()), HERE)

    def pair(self) -> None:
        """Friendships that only one side has, in the source and here: what differs in that comes of other
        differences, and is not counted among them.
        """
        self.counts.update(compare(self._halves, self.domains, self._found))

    def _tell(self, difference: Difference) -> None:
        self.counts["differences"] += 1
        self._found(difference)


def compared(arrival: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Difference]:
    """All in which an account here differs from the source: `what`, `of`, and both values but for secrets."""
    if not fits(arrival["credentials"], keys_of(row)):
        yield {"what": "keys"}
    if arrival["disabled"] != row["disabled"]:
        yield {"what": "disabled", "source": arrival["disabled"], "here": row["disabled"]}
    source, here = (it["parts"].get("roster", ()) for it in (arrival, row))
    if source != here:
        yield from compared_rosters(dict(source), dict(here))
    for kind in PARTS:
        source, here = arrival["parts"].get(kind), row["parts"].get(kind)
        if kind == "offline":
            source, here = stanzas(source), stanzas(here)
        if source != here:
            yield {"what": kind, "source": shown(source), "here": shown(here)}


def compared_rosters(source: Packed, here: Packed) -> Iterator[Difference]:
    """Contact by contact, both ways; groups are sets."""
    for contact in sorted(source.keys() | here.keys()):
        texts = source.get(contact), here.get(contact)
        if texts[0] == texts[1]:
            continue
        one, other = (None if text is None else item_from(contact, text) for text in texts)
        if one is None or other is None:
            shown_as = [None if item is None else item.packed or "request" for item in (one, other)]
            yield {"what": "contact", "of": contact, "source": shown_as[0], "here": shown_as[1]}
            continue
        for name in FIELDS:
            left, right = getattr(one, name), getattr(other, name)
            if name == "groups":
                left, right = sorted(set(left)), sorted(set(right))
            if left != right:
                left, right = (it.decode() if isinstance(it, bytes) else it for it in (left, right))
                yield {"what": "contact", "of": contact, "field": name, "source": left, "here": right}


def fits(credentials: Mapping[str, Any], here: Mapping[str, Keys]) -> bool:
    """Whether who could log in there can log in here: the same keys, or keys of the plain password."""
    if "password" in credentials:
        return is_password_of(credentials["password"], here)
    wanted = keys_in({**dict.fromkeys(ACCOUNT.columns), **credentials})
    return all(here.get(name) == Keys(*keys) for name, keys in wanted.items()) and bool(wanted) == bool(here)


def is_password_of(password: str, here: Mapping[str, Keys]) -> bool:
    """Whether one of the keys is of this password; one is enough, for each takes milliseconds."""
    try:
        form = scram_form(password)
    except BadPassword:
        return not here
    for name, keys in here.items():
        found = derive_keys(name, form, keys.salt, keys.iterations)
        return hmac.compare_digest(found.stored, keys.stored)
    return False


def states_of(door: Door, names: Sequence[str]) -> dict[str, str]:
    """The state of each account that is here: it is another one after each change of keys or roster."""
    found: dict[str, str] = {}
    for some in pieces(names, 250):
        found |= door.call("migrate states", {"account": some})
    return found


def stanzas(messages: Sequence[Sequence[Any]] | None) -> list[str] | None:
    """Messages without the moments at which they were taken in."""
    return None if messages is None else [stanza for stanza, _ in messages]


def shown(value: Any) -> Any:
    """A value as a difference shows it: a long one by its size and a hash."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if value is None or len(text) <= 200:
        return value
    return f"{len(text)} letters, {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def run(
    wanted: Wanted,
    reach: Callable[[], AbstractContextManager[Door]],
    *,
    report: Path | None,
    full: bool,
    out: TextIO = sys.stderr,
) -> tuple[dict[str, Any], int]:
    """Compare a whole source; the summary and the exit code."""
    bar = ProgressBar(out, unit="accounts")
    examples: list[Difference] = []
    with ExitStack() as stack:
        lines = stack.enter_context(report.open("w", encoding="utf-8")) if report is not None else None

        def found(difference: Difference) -> None:
            if len(examples) < SHOWN:
                examples.append(difference)
            if lines is not None:
                lines.write(json.dumps(difference, ensure_ascii=False) + "\n")

        door = stack.enter_context(reach())
        folder = Path(door.call("migrate folder", {}))
        verified = stack.enter_context(closing(Verified(folder / "verified.sqlite")))
        scratch = Path(tempfile.mkdtemp(prefix="verify-", dir=folder))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        feed = stack.enter_context(closing(Feed(wanted, scratch)))
        halves = stack.enter_context(closing(Halves(scratch / "halves.sqlite", wanted.domains)))
        names = stack.enter_context(closing(Names(scratch)))
        verification = Verification(door, verified, found, halves, names, full=full)
        for number, batch in enumerate(feed):
            if number == 0:
                bar.begin("comparing", feed.total)
            with step("verify batch", {"xmppd.accounts": len(batch.rows)}):
                verification.compare(batch)
            bar.advance(len(batch.rows))
        bar.end()
        if not wanted.only:
            with step("verify what is only here"):
                verification.look_for_more()
            with step("verify pairs"):
                verification.pair()
    counts = verification.counts
    summary: dict[str, Any] = {**counts, "lost in reading": {k: v["count"] for k, v in feed.losses.items()}}
    if examples:
        summary["first differences"] = examples
    return summary, FAILED if counts["differences"] else 0
