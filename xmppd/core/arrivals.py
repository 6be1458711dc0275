"""Accounts that come from another server: written so that a repeat is harmless, and taken back if need be.

Of each account it is kept which run brought it, what it was given, and what stood there before (`ARRIVALS`).
That row is written before anything else of the account and completed after all else: so an account that a
kill left half done is told from one that was there, and finished by whoever repeats the run.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from xmppd.core.accounts import ACCOUNT, Accounts, AccountUnknown
from xmppd.core.blocks import Blocks
from xmppd.core.contacts import Contacts
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
        "version": "int",
        "changed": "int",
        "at": "timestamp",
    },
)
"""`state` is begun, done or undone. `hashes` has one for each kind of what was given, `before` what stood
there, `version` and `changed` are those of roster and account afterwards: by them it is seen what came later.
"""

Conflict = Literal["keep", "replace", "merge"]
ROSTER, KEYS, BLOCKS = "roster", "keys", "blocks"

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
    """

    run: str
    conflict: Conflict = "keep"
    live: bool = False
    dry: bool = False


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
    """What became of it: made, changed, unchanged, kept (it was here), or failed; in which kinds, and why."""

    account: str
    done: str
    kinds: tuple[str, ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()


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
        if mark is not None and row is not None and is_repeat(arrival, mark, terms):
            return Outcome(account, "made" if mark["is_new"] else "changed", kinds_of(arrival, mark))
        is_ours = mark is not None and mark["run"] == terms.run and mark["state"] == "begun"
        is_new = row is None or (is_ours and mark is not None and bool(mark["is_new"]))
        if not is_new and not is_ours and terms.conflict == "keep":
            return Outcome(account, "kept", why="it is here already")
        kinds = [*arrival.parts] if is_new else self._changed(arrival, mark, terms)
        rekeyed = not is_new and self._is_rekeyed(arrival, mark, row, terms)
        if not is_new and not kinds and not rekeyed:
            return Outcome(account, "unchanged")
        done = "made" if is_new else "changed"
        notes = tuple(f"not kept here: {kind}" for kind in kinds if not self._can_take(kind))
        kinds = [kind for kind in kinds if self._can_take(kind)]
        if terms.dry:
            return Outcome(account, done, (*kinds, *([KEYS] if rekeyed else ())), notes=notes)
        if is_new:
            await self._make(arrival, terms, kinds, row, is_fresh=mark is None and row is None)
        else:
            await self._change(arrival, terms, kinds, row if rekeyed else None, mark if is_ours else None)
        return Outcome(account, done, (*kinds, *([KEYS] if rekeyed else ())), notes=notes)

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
    def _is_rekeyed(arrival: Arrival, mark: Row | None, row: Row | None, terms: Terms) -> bool:
        """Whether the account is to log in with what the source has: where it has nothing else, or that is
        wanted and another one than last time.
        """
        if not arrival.credentials or row is None:
            return False
        if not any(row[column] for column in ACCOUNT.columns if column.startswith("scram_")):
            return True
        known = json.loads(mark["hashes"] or "{}") if mark is not None else {}
        return terms.conflict == "replace" and known.get(KEYS, "") != arrival.hashes.get(KEYS)

    async def _make(
        self, arrival: Arrival, terms: Terms, kinds: Sequence[str], row: Row | None, *, is_fresh: bool
    ) -> None:
        """All it has before the account itself: from then on somebody may log in. `is_fresh`: nothing can be
        there of an attempt that was cut short.
        """
        account = arrival.account
        await self._begin(arrival, terms, is_new=True, before={})
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
        await self._end(arrival, version, changed)

    async def _change(
        self, arrival: Arrival, terms: Terms, kinds: Sequence[str], row: Row | None, begun: Row | None
    ) -> None:
        account = arrival.account
        async with self._accounts.hold(account) as exists:
            if not exists:
                raise AccountUnknown(account)
            before = (
                json.loads(begun["before"] or "{}")
                if begun is not None
                else await self._before(account, kinds, row)
            )
            await self._begin(arrival, terms, is_new=False, before=before)
            version = 0
            for kind in kinds:
                if kind == ROSTER:
                    version = (await self._rewrite(account, self._edit(arrival, terms), terms)).version
                else:
                    new = arrival.parts.get(kind)
                    if terms.conflict == "merge":
                        new = joined(before.get(kind), new)
                    await self._put(account, kind, new)
        changed = await self._accounts.rekey(account, dict(arrival.credentials)) if row is not None else 0
        await self._end(arrival, version, changed)

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

    async def _before(self, account: str, kinds: Sequence[str], row: Row | None) -> dict[str, Any]:
        """What stands there of what is about to be changed."""
        before = {kind: await self.give(account, kind) for kind in kinds}
        if row is not None:
            before[KEYS] = {column: row[column] for column in ACCOUNT.columns if column.startswith("scram_")}
        return before

    async def _begin(
        self, arrival: Arrival, terms: Terms, *, is_new: bool, before: Mapping[str, Any]
    ) -> None:
        mark: Row = {
            "account": arrival.account,
            "run": terms.run,
            "state": "begun",
            "is_new": is_new,
            "hashes": "{}",
            "before": json.dumps(before, ensure_ascii=False) if before else "",
            "version": 0,
            "changed": 0,
            "at": self._now(),
        }
        await self._store.put(ARRIVALS, mark)

    async def _end(self, arrival: Arrival, version: int, changed: int) -> None:
        hashes = json.dumps(dict(arrival.hashes), separators=(",", ":"))
        mark: Row = {"account": arrival.account, "state": "done", "hashes": hashes}
        await self._store.put(ARRIVALS, {**mark, "version": version, "changed": changed})

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
                if kind == KEYS:
                    continue
                if kind == ROSTER and await self._rosters.version(account) > (mark["version"] or 0):
                    kept.append(kind)
                elif kind == ROSTER:
                    edit = given(Arrival(account, parts={ROSTER: value or ()}))
                    await self._rosters.rewrite(account, edit, by=f"undo {mark['run']}", what="undo")
                else:
                    await self._put(account, kind, value)
        if KEYS in before:
            row = await self._store.get(ACCOUNT, (account,))
            if row is not None and row["changed"] == mark["changed"]:
                await self._accounts.rekey(account, before[KEYS])
            else:
                kept.append(KEYS)
        if kept:
            return Outcome(account, "kept", tuple(kept), "changed since")
        return Outcome(account, "restored", tuple(before))

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
