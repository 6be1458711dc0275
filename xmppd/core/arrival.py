"""An account that comes from another server, what may become of it, and the mark that is kept of that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from xmppd.core.digest import digest
from xmppd.store.person import Person
from xmppd.store.table import Row, Table

ARRIVALS = Table(
    "arrivals",
    partition=("account",),
    columns={
        "run": "text",
        "state": "text",
        "is_new": "bool",
        "hashes": "text",
        "before": "text",
        "stands": "text",
        "version": "int",
        "changed": "int",
        "at": "timestamp",
    },
    person=Person(
        "account",
        secret={
            "before": "what stood there before the account was imported, keys among it",
            "hashes": "of what was imported, keys among it",
            "stands": "the same of what else was there",
        },
    ),
)
"""`state` is begun, done or undone. `hashes` has one for each kind of what was given, `before` what stood
there, `version` and `changed` are those of roster and account afterwards: by them it is seen what came later.
`stands` has a hash of what else stood there then, by kind, and by column of the account.
"""

Conflict = Literal["keep", "replace", "merge"]
ROSTER, KEYS, BLOCKS, DISABLED = "roster", "keys", "blocks", "disabled"


@dataclass(frozen=True, slots=True)
class Terms:
    """How a run goes about accounts that are here already: they are kept as they are, replaced in all that
    the source has, or merged. `live`: sessions are told of their roster's changes. `dry`: nothing is written.
    `shadows`: the run reads its source again and again, and is told of what was changed here meanwhile.
    """

    run: str
    conflict: Conflict = "keep"
    live: bool = False
    dry: bool = False
    shadows: bool = False


@dataclass(frozen=True, slots=True)
class Arrival:
    """One account as it is to stand here. `credentials` are columns of its row, `parts` its belongings by
    kind as JSON has them, `hashes` one for each of these kinds and for `keys`.
    """

    account: str
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    disabled: bool = False
    created: float | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: made, changed, unchanged, kept (it was here), or failed; in which kinds, and why.
    `ours` are the kinds that had been changed here since they were last brought, for who `shadows`.
    """

    account: str
    done: str
    kinds: tuple[str, ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()


def begun(
    arrival: Arrival,
    terms: Terms,
    at: float,
    before: Mapping[str, Any] = MappingProxyType({}),
    version: int = 0,
    changed: int = 0,
    stands: Mapping[str, str] = MappingProxyType({}),
    *,
    is_new: bool = False,
) -> Row:
    """The mark that comes before all else; of a new account `changed` is what it will be made by."""
    return {
        "account": arrival.account,
        "run": terms.run,
        "state": "begun",
        "is_new": is_new,
        "hashes": "{}",
        "before": json.dumps(dict(before), ensure_ascii=False) if before else "",
        "stands": json.dumps(dict(stands)),
        "version": version,
        "changed": changed,
        "at": at,
    }


def done(
    arrival: Arrival, version: int, changed: int, stands: Mapping[str, str], *, is_new: bool = False
) -> Row:
    """What is written over it after all else."""
    hashes = json.dumps(dict(arrival.hashes), separators=(",", ":"))
    mark: Row = {"account": arrival.account, "state": "done", "hashes": hashes}
    if is_new:
        mark["is_new"] = True
    stood = json.dumps({name: value for name, value in stands.items() if value}, separators=(",", ":"))
    return {**mark, "version": version, "changed": changed, "stands": stood}


def standing(kind: str, value: Any) -> str:
    """A hash of what an account has of a kind, "" for nothing; messages without their moments, which they may
    be given here.
    """
    if not value:
        return ""
    return digest([stanza for stanza, _ in value] if kind == "offline" else value)


def standing_columns(arrival: Arrival, which: Sequence[str]) -> dict[str, str]:
    """The same of the columns that were written."""
    found: dict[str, str] = {}
    if KEYS in which:
        columns = ((name, value) for name, value in arrival.credentials.items() if value)
        found |= {name: digest(value) for name, value in columns if name.startswith("scram_")}
    if DISABLED in which:
        found[DISABLED] = digest(arrival.disabled)
    return found


def standing_of(mark: Row | None) -> dict[str, str]:
    """What stood there when a run had done an account, as far as it was brought."""
    if mark is None or mark["state"] == "undone":
        return {}
    found: dict[str, str] = json.loads(mark["stands"] or "{}")
    return found


def is_repeat(arrival: Arrival, mark: Row, terms: Terms) -> bool:
    """Whether this very run brought this very account already."""
    is_done = mark["run"] == terms.run and mark["state"] == "done"
    return is_done and bool(json.loads(mark["hashes"] or "{}") == dict(arrival.hashes))


def is_begun(row: Row | None, mark: Row, terms: Terms) -> bool:
    """Whether an attempt of this very run was cut short. An account that it was about to make, and that was
    not made by its number, is somebody else's (0: begun by a release that told no number).
    """
    if mark["run"] != terms.run or mark["state"] != "begun":
        return False
    return row is None or not mark["is_new"] or mark["changed"] in (0, row["changed"])


def has_keys(arrival: Arrival) -> bool:
    """Whether an account comes with the keys that its source has of it."""
    return bool(arrival.credentials) or not arrival.hashes.get(KEYS)


def keyless(arrival: Arrival) -> Outcome:
    """What becomes of one that does not, and is not here."""
    why = "it was removed here, and comes without its keys this time"
    return Outcome(arrival.account, "failed", why=why)


def kinds_of(arrival: Arrival, mark: Row) -> tuple[str, ...]:
    """The kinds that the run wrote then."""
    return tuple(arrival.parts) if mark["is_new"] else tuple(json.loads(mark["before"] or "{}"))
