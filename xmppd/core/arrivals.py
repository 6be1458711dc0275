"""Accounts that come from another server: written so that a repeat is harmless, and taken back if need be.

Of each account it is kept which run brought it, what it was given, and what stood there before (`ARRIVALS`).
That row is written before anything else of the account and completed after all else: so an account that a
kill left half done is told from one that was there, and finished by whoever repeats the run.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from xmppd.core.accounts import ACCOUNT, Accounts, AccountUnknown
from xmppd.core.blocks import Blocks
from xmppd.core.contacts import Contacts
from xmppd.core.digest import digest
from xmppd.core.roster.item import RosterItem, item_from, value_of
from xmppd.core.roster.rewriting import EditAll, Packed, Rewrite
from xmppd.core.roster.rosters import Rosters
from xmppd.store.table import Row, Store, Table

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
)
"""`state` is begun, done or undone. `hashes` has one for each kind of what was given, `before` what stood
there, `version` and `changed` are those of roster and account afterwards: by them it is seen what came later.
`stands` has a hash of what else stood there then, by kind, and by column of the account.
"""

Conflict = Literal["keep", "replace", "merge"]
ROSTER, KEYS, BLOCKS, DISABLED = "roster", "keys", "blocks", "disabled"
UNWATCHED = ("last",)
"""Kinds that are others after each session: that they are so is nothing to speak of."""

Merge = Callable[[RosterItem, RosterItem], RosterItem]


class Belonging(Protocol):
    """What some plugin keeps for accounts."""

    @property
    def give(self) -> Callable[[str], Awaitable[Any]]: ...

    @property
    def take(self) -> Callable[[str, Any], Awaitable[None]]: ...


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


class Arrivals:
    """`belongings` gives those that plugins can take now; `merge` is how two items of one contact are one."""

    def __init__(
        self,
        accounts: Accounts,
        rosters: Rosters,
        contacts: Contacts,
        blocks: Blocks,
        store: Store,
        *,
        belongings: Callable[[], Mapping[str, Belonging]],
        merge: Merge,
        now: Callable[[], float],
    ) -> None:
        self._accounts = accounts
        self._rosters = rosters
        self._contacts = contacts
        self._blocks = blocks
        self._store = store
        self._belongings = belongings
        self._merge = merge
        self._now = now

    # taking

    async def take(self, arrival: Arrival, terms: Terms) -> Outcome:
        """Take one account over. StoreError: do it again."""
        account = arrival.account
        row = await self._store.get(ACCOUNT, (account,))
        mark = await self._store.get(ARRIVALS, (account,))
        if row is not None and row["leaving"]:
            return Outcome(account, "failed", why="it is being removed")
        if mark is not None and row is not None and not terms.shadows and is_repeat(arrival, mark, terms):
            return Outcome(account, "made" if mark["is_new"] else "changed", kinds_of(arrival, mark))
        is_ours = mark is not None and mark["run"] == terms.run and mark["state"] == "begun"
        is_new = row is None or (is_ours and mark is not None and bool(mark["is_new"]))
        if not is_new and not is_ours and terms.conflict == "keep":
            return Outcome(account, "kept", why="it is here already")
        if row is None and arrival.hashes.get(KEYS) and not arrival.credentials:
            return Outcome(account, "failed", why="it was removed here, and comes without its keys this time")
        kinds = [*arrival.parts] if is_new else self._changed(arrival, mark, terms)
        ours: tuple[str, ...] = ()
        if terms.shadows and row is not None and not is_new:
            ours = await self.changed_here(row, mark) or ()
        columns = self._columns(arrival, mark, row, terms) if row is not None and not is_new else ()
        if not is_new and not kinds and not columns:
            return Outcome(account, "unchanged", ours=ours)
        done = "made" if is_new else "changed"
        notes = tuple(f"not kept here: {kind}" for kind in kinds if not self._can_take(kind))
        kinds = [kind for kind in kinds if self._can_take(kind)]
        outcome = Outcome(account, done, (*kinds, *columns), notes=notes, ours=ours)
        if terms.dry:
            return outcome
        if row is None or is_new:
            await self._make(arrival, terms, kinds, row, is_fresh=mark is None and row is None)
        else:
            await self._change(arrival, terms, kinds, columns, row, mark)
        return outcome

    def _can_take(self, kind: str) -> bool:
        return kind in (ROSTER, BLOCKS) or kind in self._belongings()

    @staticmethod
    def _changed(arrival: Arrival, mark: Row | None, terms: Terms) -> list[str]:
        """The kinds that the source has otherwise than when it was read last; those it has no more, too."""
        known = json.loads(mark["hashes"] or "{}") if mark is not None and mark["state"] == "done" else {}
        kinds = [kind for kind in arrival.parts if known.get(kind) != arrival.hashes.get(kind)]
        if terms.conflict == "replace":
            kinds += [kind for kind in known if kind not in arrival.parts and kind != KEYS]
        return kinds

    @staticmethod
    def _columns(arrival: Arrival, mark: Row | None, row: Row, terms: Terms) -> tuple[str, ...]:
        """What else of the account is to be what the source has: `KEYS` where it has none, or where that is
        wanted and they are others than last time; `DISABLED` where it is wanted.
        """
        found: list[str] = []
        known = json.loads(mark["hashes"] or "{}") if mark is not None else {}
        has_keys = any(row[column] for column in ACCOUNT.columns if column.startswith("scram_"))
        is_other = terms.conflict == "replace" and known.get(KEYS, "") != arrival.hashes.get(KEYS)
        if arrival.credentials and (not has_keys or is_other):
            found.append(KEYS)
        if terms.conflict == "replace":
            stood = standing_of(mark).get(DISABLED, digest(bool(row["disabled"])))
            if stood != digest(arrival.disabled):
                found.append(DISABLED)
        return tuple(found)

    async def _make(
        self, arrival: Arrival, terms: Terms, kinds: Sequence[str], row: Row | None, *, is_fresh: bool
    ) -> None:
        """All it has before the account itself: from then on somebody may log in. `is_fresh`: nothing can be
        there of an attempt that was cut short.
        """
        account = arrival.account
        await self._begin(arrival, terms, before={}, is_new=True)
        version = 0
        for kind in kinds:
            if kind == ROSTER and is_fresh:
                items = dict(arrival.parts[ROSTER])
                version = await self._rosters.lay(account, items, by=by(terms), what="import")
            elif kind == ROSTER:
                version = (await self._rewrite(account, given(arrival), terms)).version
            else:
                await self._put(account, kind, arrival.parts[kind])
        if row is not None:
            changed = row["changed"]
        else:
            changed = await self._accounts.adopt(
                account, dict(arrival.credentials), created=arrival.created, disabled=arrival.disabled
            )
        if changed is None:  # somebody was quicker: what stands is looked at again by who repeats this
            raise AccountUnknown(account)
        stands = {kind: standing(kind, arrival.parts[kind]) for kind in kinds if kind != ROSTER}
        stands |= standing_columns(arrival, (KEYS, DISABLED))
        await self._end(arrival, version, changed, stands)

    async def _change(
        self,
        arrival: Arrival,
        terms: Terms,
        kinds: Sequence[str],
        columns: Sequence[str],
        row: Row,
        mark: Row | None,
    ) -> None:
        """What an earlier part of the same run found there is what stood there before the run."""
        account = arrival.account
        is_same_run = mark is not None and mark["run"] == terms.run
        earlier = json.loads(mark["before"] or "{}") if mark is not None and is_same_run else {}
        stands = standing_of(mark)
        version, changed = (mark["version"], mark["changed"]) if stands and mark is not None else (0, 0)
        async with self._accounts.hold(account) as exists:
            if not exists:
                raise AccountUnknown(account)
            before = {**await self._before(account, kinds, columns, row), **earlier}
            await self._begin(arrival, terms, before=before, version=version, changed=changed, stands=stands)
            for kind in kinds:
                if kind == ROSTER:
                    version = (await self._rewrite(account, self._edit(arrival, terms), terms)).version
                    continue
                new = arrival.parts.get(kind)
                if terms.conflict == "merge":
                    new = joined(before.get(kind), new)
                await self._put(account, kind, new)
                stands[kind] = standing(kind, new)
        if KEYS in columns:
            changed = await self._accounts.rekey(account, dict(arrival.credentials))
            stands = {name: value for name, value in stands.items() if not name.startswith("scram_")}
        if DISABLED in columns:
            await (self._accounts.disable if arrival.disabled else self._accounts.enable)(account)
            found = await self._store.get(ACCOUNT, (account,))
            changed = found["changed"] if found is not None else changed
        is_new = is_same_run and mark is not None and mark["state"] == "done" and bool(mark["is_new"])
        stands |= standing_columns(arrival, columns)
        await self._end(arrival, version, changed, stands, is_new=is_new)

    def _edit(self, arrival: Arrival, terms: Terms) -> EditAll:
        if terms.conflict == "replace":
            return given(arrival)

        def edit(old: Packed) -> Packed:
            known = dict(old)
            for contact, value in arrival.parts.get(ROSTER, ()):
                if contact in old:
                    both = self._merge(item_from(contact, old[contact]), item_from(contact, value))
                    value = value_of(both)
                known[contact] = value
            return known

        return edit

    async def _before(
        self, account: str, kinds: Sequence[str], columns: Sequence[str], row: Row
    ) -> dict[str, Any]:
        """What stands there of what is about to be changed."""
        before = {kind: await self.give(account, kind) for kind in kinds}
        if KEYS in columns:
            before[KEYS] = {column: row[column] for column in ACCOUNT.columns if column.startswith("scram_")}
        if DISABLED in columns:
            before[DISABLED] = bool(row["disabled"])
        return before

    async def _begin(
        self,
        arrival: Arrival,
        terms: Terms,
        *,
        before: Mapping[str, Any],
        is_new: bool = False,
        version: int = 0,
        changed: int = 0,
        stands: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        mark: Row = {
            "account": arrival.account,
            "run": terms.run,
            "state": "begun",
            "is_new": is_new,
            "hashes": "{}",
            "before": json.dumps(before, ensure_ascii=False) if before else "",
            "stands": json.dumps(dict(stands)),
            "version": version,
            "changed": changed,
            "at": self._now(),
        }
        await self._store.put(ARRIVALS, mark)

    async def _end(
        self,
        arrival: Arrival,
        version: int,
        changed: int,
        stands: Mapping[str, str],
        *,
        is_new: bool = False,
    ) -> None:
        hashes = json.dumps(dict(arrival.hashes), separators=(",", ":"))
        mark: Row = {"account": arrival.account, "state": "done", "hashes": hashes}
        if is_new:
            mark["is_new"] = True
        stood = json.dumps({name: value for name, value in stands.items() if value}, separators=(",", ":"))
        await self._store.put(ARRIVALS, {**mark, "version": version, "changed": changed, "stands": stood})

    async def _rewrite(self, account: str, edit: EditAll, terms: Terms) -> Rewrite:
        rewrite = await self._rosters.rewrite(account, edit, by=by(terms), what="import")
        if terms.live:
            await self._contacts.rewritten(account, rewrite)
        return rewrite

    async def _put(self, account: str, kind: str, value: Any) -> None:
        if kind == BLOCKS:
            await self._blocks.replace(account, value or (), self._now())
        else:
            await self._belongings()[kind].take(account, value)

    async def version(self, account: str) -> int:
        """The version of its roster, which is its last change in milliseconds since the epoch at least."""
        return await self._rosters.version(account)

    # giving

    async def give(self, account: str, kind: str) -> Any:
        """What the account has of a kind, in the form in which it would arrive; None for nothing."""
        if kind == ROSTER:
            return [list(item) for item in (await self._rosters.packed(account)).items()] or None
        if kind == BLOCKS:
            return await self._blocks.of(account) or None
        belonging = self._belongings().get(kind)
        return await belonging.give(account) if belonging is not None else None

    async def give_all(self, account: str) -> dict[str, Any]:
        """Everything it has, by kind."""
        found = {kind: await self.give(account, kind) for kind in (ROSTER, BLOCKS, *self._belongings())}
        return {kind: value for kind, value in found.items() if value is not None}

    # what came later

    async def changed_here(
        self, row: Row, mark: Row | None, parts: Mapping[str, Any] | None = None
    ) -> tuple[str, ...] | None:
        """The kinds in which an account is another one than a run left it; None where none brought it. `row`
        is the account's, `mark` its row of `ARRIVALS`; with `parts` its belongings need not be read.
        """
        if mark is None or mark["state"] != "done":
            return None
        account, stands = row["account"], standing_of(mark)
        found: list[str] = []
        if await self._rosters.version(account) > (mark["version"] or 0):
            found.append(ROSTER)
        columns = [column for column in ACCOUNT.columns if column.startswith("scram_")]
        written = [column for column in columns if column in stands]
        if any(digest(row[column]) != stands[column] for column in written) or (
            not written and any(row[column] for column in columns)
        ):
            found.append(KEYS)
        if stands.get(DISABLED, "") not in ("", digest(bool(row["disabled"]))):
            found.append(DISABLED)
        for kind in (BLOCKS, *self._belongings()):
            if kind not in UNWATCHED:
                value = await self.give(account, kind) if parts is None else parts.get(kind)
                if standing(kind, value) != stands.get(kind, ""):
                    found.append(kind)
        return tuple(found)

    # going back

    async def undo(self, mark: Row, *, dry: bool = False) -> Outcome:
        """Put what a run did to one account back, where nothing newer stands; `mark` is its row of
        `ARRIVALS`.
        """
        account = mark["account"]
        if mark["state"] == "undone":
            return Outcome(account, "unchanged", why="it was taken back already")
        if dry:
            return Outcome(account, "removed" if mark["is_new"] else "restored")
        outcome = await (self._unmake(mark) if mark["is_new"] else self._restore(mark))
        if outcome.done == "removed":
            await self.forget(account)
        elif outcome.done == "restored":
            await self._store.put(ARRIVALS, {"account": account, "state": "undone", "hashes": "{}"})
        return outcome

    async def _unmake(self, mark: Row) -> Outcome:
        account = mark["account"]
        row = await self._store.get(ACCOUNT, (account,))
        if row is not None:
            version = await self._rosters.version(account)
            if mark["state"] == "done" and version > mark["version"]:
                return Outcome(account, "kept", (ROSTER,), "its roster was changed since")
            if not await self._accounts.unmake(account, mark["changed"] or row["changed"]):
                return Outcome(account, "kept", (KEYS,), "the account was changed since")
        for kind in (BLOCKS, *self._belongings()):
            await self._put(account, kind, None)
        await self._rosters.remove_account(account)
        return Outcome(account, "removed")

    async def _restore(self, mark: Row) -> Outcome:
        account, before = mark["account"], json.loads(mark["before"] or "{}")
        kept: list[str] = []
        async with self._accounts.hold(account) as exists:
            if not exists:
                return Outcome(account, "kept", why="there is no such account any more")
            for kind, value in before.items():
                if kind in (KEYS, DISABLED):
                    continue
                if kind == ROSTER and await self._rosters.version(account) > (mark["version"] or 0):
                    kept.append(kind)
                elif kind == ROSTER:
                    edit = given(Arrival(account, parts={ROSTER: value or ()}))
                    await self._rosters.rewrite(account, edit, by=f"undo {mark['run']}", what="undo")
                else:
                    await self._put(account, kind, value)
        kept += await self._restore_columns(account, before, mark)
        if kept:
            return Outcome(account, "kept", tuple(kept), "changed since")
        return Outcome(account, "restored", tuple(before))

    async def _restore_columns(self, account: str, before: Mapping[str, Any], mark: Row) -> list[str]:
        """Put keys and `disabled` back; those that cannot be, for the account was changed since."""
        columns = [kind for kind in (KEYS, DISABLED) if kind in before]
        row = await self._store.get(ACCOUNT, (account,)) if columns else None
        if row is None or row["changed"] != mark["changed"]:
            return columns
        if KEYS in before:
            await self._accounts.rekey(account, before[KEYS])
        if DISABLED in before:
            await (self._accounts.disable if before[DISABLED] else self._accounts.enable)(account)
        return []

    async def forget(self, account: str) -> None:
        """The account is gone."""
        await self._store.delete(ARRIVALS, (account,))


def by(terms: Terms) -> str:
    """Who the roster's log says it was."""
    return f"migrate {terms.run}"


def given(arrival: Arrival) -> EditAll:
    """Makes a roster of what arrives, and of nothing else."""
    items = dict(arrival.parts.get(ROSTER, ()))
    return lambda old: items


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


def kinds_of(arrival: Arrival, mark: Row) -> tuple[str, ...]:
    """The kinds that the run wrote then."""
    return tuple(arrival.parts) if mark["is_new"] else tuple(json.loads(mark["before"] or "{}"))


def joined(old: Any, new: Any) -> Any:
    """What is there and what comes, together: of two with one name the one that is there."""
    if old is None or new is None:
        return new if old is None else old
    if isinstance(old, dict):
        return {**new, **old}
    if isinstance(old, list):
        return [*old, *(value for value in new if value not in old)]
    return old
