"""Accounts that come from another server: written so that a repeat is harmless, and taken back if need be.

Of each account it is kept which run brought it, what it was given, and what stood there before (`ARRIVALS`).
That row is written before anything else of the account and completed after all else: so an account that a
kill left half done is told from one that was there, and finished by whoever repeats the run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from xmppd.core.accounts import ACCOUNT, Accounts, AccountUnknown
from xmppd.core.arrival import (
    ARRIVALS,
    BLOCKS,
    DISABLED,
    KEYS,
    ROSTER,
    Arrival,
    Outcome,
    Terms,
    begun,
    done,
    has_keys,
    is_begun,
    is_repeat,
    keyless,
    kinds_of,
    standing,
    standing_columns,
    standing_of,
)
from xmppd.core.blocking import Blocking
from xmppd.core.blocks import Blocks
from xmppd.core.contacts import Contacts
from xmppd.core.digest import digest
from xmppd.core.gone import new_number
from xmppd.core.roster.item import RosterItem, item_from, value_of
from xmppd.core.roster.rewriting import EditAll, Packed, Rewrite
from xmppd.core.roster.rosters import Rosters
from xmppd.errors import StoreError
from xmppd.store.table import Row, Store

UNWATCHED = ("last",)
"""Kinds that are others after each session: that they are so is nothing to speak of."""

Merge = Callable[[RosterItem, RosterItem], RosterItem]


class Belonging(Protocol):
    """What some plugin keeps for accounts."""

    @property
    def give_all(self) -> Callable[[Sequence[str]], Awaitable[Sequence[Any]]]: ...

    @property
    def take(self) -> Callable[[str, Any], Awaitable[None]]: ...


class Arrivals:
    """`belongings` gives those that plugins can take now; `merge` is how two items of one contact are one.
    `tell` is told of each account that was taken (made, changed) or taken back (removed, restored), and of
    the run, before that counts as done: once more where it was cut short.
    """

    def __init__(
        self,
        accounts: Accounts,
        rosters: Rosters,
        contacts: Contacts,
        blocks: Blocks,
        blocking: Blocking,
        store: Store,
        *,
        belongings: Callable[[], Mapping[str, Belonging]],
        merge: Merge,
        now: Callable[[], float],
        tell: Callable[[str, str, str], Awaitable[None] | None],
    ) -> None:
        self._accounts = accounts
        self._rosters = rosters
        self._contacts = contacts
        self._blocks = blocks
        self._blocking = blocking
        self._store = store
        self._belongings = belongings
        self._merge = merge
        self._now = now
        self._tell = tell

    async def _told(self, account: str, what: str, run: str) -> None:
        if (told := self._tell(account, what, run)) is not None:
            await told

    # taking

    async def take(self, arrival: Arrival, terms: Terms) -> Outcome:
        """Take one account over. StoreError, AccountUnknown (it came or went meanwhile): do it again."""
        [outcome] = await self.take_all([arrival], terms)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def take_all(self, arrivals: Sequence[Arrival], terms: Terms) -> list[Outcome | BaseException]:
        """Take some accounts of different names over at once: what `take` returns or raises for each. They
        are looked up together, and those that are new are marked together. StoreError: none was looked at.
        """
        names = [arrival.account for arrival in arrivals]
        rows, marks = await asyncio.gather(
            self._store.get_many(ACCOUNT, names), self._store.get_many(ARRIVALS, names)
        )
        found = list(zip(arrivals, rows, marks, strict=True))
        fresh = [it for it, row, mark in found if row is None and mark is None and not terms.dry]
        rest = [
            (it, row, mark) for it, row, mark in found if row is not None or mark is not None or terms.dry
        ]
        taken = asyncio.gather(*(self._take(*it, terms) for it in rest), return_exceptions=True)
        made, others = await asyncio.gather(self._make_all(fresh, terms), taken)
        accounts = [arrival.account for arrival in fresh] + [arrival.account for arrival, _, _ in rest]
        outcomes = dict(zip(accounts, [*made, *others], strict=True))
        return [outcomes[name] for name in names]

    async def _take(self, arrival: Arrival, row: Row | None, mark: Row | None, terms: Terms) -> Outcome:
        """Take one account over of which this was found."""
        account = arrival.account
        if row is not None and row["leaving"]:
            return Outcome(account, "failed", why="it is being removed")
        if mark is not None and row is not None and not terms.shadows and is_repeat(arrival, mark, terms):
            return Outcome(account, "made" if mark["is_new"] else "changed", kinds_of(arrival, mark))
        is_ours = mark is not None and is_begun(row, mark, terms)
        is_new = row is None or (is_ours and mark is not None and bool(mark["is_new"]))
        if not is_new and not is_ours and terms.conflict == "keep":
            return Outcome(account, "kept", why="it is here already")
        if row is None and not has_keys(arrival):
            return keyless(arrival)
        kinds = [*arrival.parts] if is_new else self._changed(arrival, mark, terms)
        ours: tuple[str, ...] = ()
        if terms.shadows and row is not None and not is_new:
            ours = await self.changed_here(row, mark) or ()
        columns = self._columns(arrival, mark, row, terms) if row is not None and not is_new else ()
        if not is_new and not kinds and not columns:
            return Outcome(account, "unchanged", ours=ours)
        done = "made" if is_new else "changed"
        kinds, notes = self._kinds(kinds)
        outcome = Outcome(account, done, (*kinds, *columns), notes=notes, ours=ours)
        if terms.dry:
            return outcome
        if row is None or is_new:
            await self._make_again(arrival, terms, kinds, row, mark)
        else:
            await self._change(arrival, terms, kinds, columns, row, mark)
        return outcome

    def _kinds(self, kinds: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
        """Those that can be taken, and a note for each of the others."""
        notes = tuple(f"not kept here: {kind}" for kind in kinds if not self._can_take(kind))
        return [kind for kind in kinds if self._can_take(kind)], notes

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

    async def _make_all(self, arrivals: Sequence[Arrival], terms: Terms) -> list[Outcome | BaseException]:
        """Accounts of which nothing is here, not even of an attempt that was cut short."""
        outcomes: dict[str, Outcome | BaseException] = {}
        wanted: list[tuple[Arrival, list[str], int]] = []
        for arrival in arrivals:
            kinds, notes = self._kinds([*arrival.parts])
            outcomes[arrival.account] = Outcome(arrival.account, "made", tuple(kinds), notes=notes)
            if has_keys(arrival):
                wanted.append((arrival, kinds, new_number()))
            else:
                outcomes[arrival.account] = keyless(arrival)
        now = self._now()
        try:
            marks = [begun(it, terms, now, changed=number, is_new=True) for it, _, number in wanted]
            await self._store.put_many(ARRIVALS, marks)
            making = (self._make(it, terms, kinds, number) for it, kinds, number in wanted)
            made = await asyncio.gather(*making, return_exceptions=True)
            for (arrival, _, _), mark in zip(wanted, made, strict=True):
                if isinstance(mark, BaseException):
                    outcomes[arrival.account] = mark
            await self._store.put_many(ARRIVALS, [it for it in made if not isinstance(it, BaseException)])
        except StoreError as error:
            outcomes |= {arrival.account: error for arrival, _, _ in wanted}
        return [outcomes[arrival.account] for arrival in arrivals]

    async def _make_again(
        self, arrival: Arrival, terms: Terms, kinds: Sequence[str], row: Row | None, mark: Row | None
    ) -> None:
        """An account of which there is something of an attempt that was cut short, or of another run. It is
        made by the number that was told first, for the store may do yet what that attempt asked of it.
        """
        is_begun_here = mark is not None and is_begun(row, mark, terms) and bool(mark["is_new"])
        number = (mark["changed"] if mark is not None and is_begun_here else 0) or new_number()
        if row is not None:
            number = row["changed"]
        await self._store.put(ARRIVALS, begun(arrival, terms, self._now(), changed=number, is_new=True))
        made = await self._make(arrival, terms, kinds, number, is_fresh=False, is_there=row is not None)
        await self._store.put(ARRIVALS, made)

    async def _make(
        self,
        arrival: Arrival,
        terms: Terms,
        kinds: Sequence[str],
        number: int,
        *,
        is_fresh: bool = True,
        is_there: bool = False,
    ) -> Row:
        """All it has before the account itself: from then on somebody may log in. The mark to leave. Unless
        `is_fresh` there may be something of an earlier attempt, and the account, too, if it `is_there`.
        """
        account = arrival.account
        version = 0
        for kind in kinds:
            if kind == ROSTER and is_fresh:
                items = dict(arrival.parts[ROSTER])
                version = await self._rosters.lay(account, items, by=by(terms), what="import")
            elif kind == ROSTER:
                version = (await self._rewrite(account, given(arrival), terms)).version
            else:
                await self._put(account, kind, arrival.parts[kind])
        if not is_there:
            await self._adopt(arrival, kinds, number)
        await self._told(account, "made", terms.run)
        stands = {kind: standing(kind, arrival.parts[kind]) for kind in kinds if kind != ROSTER}
        return done(arrival, version, number, stands | standing_columns(arrival, (KEYS, DISABLED)))

    async def _adopt(self, arrival: Arrival, kinds: Sequence[str], number: int) -> None:
        """The account itself. Where somebody was quicker, what was written before is not theirs: it is taken
        back, and AccountUnknown says to look again.
        """
        account, keys = arrival.account, dict(arrival.credentials)
        if await self._accounts.adopt(
            account, keys, number, created=arrival.created, disabled=arrival.disabled
        ):
            return
        row = await self._store.get(ACCOUNT, (account,))
        if row is not None and row["changed"] == number:
            return  # an attempt before this one did it, later than it was waited for
        items = dict(arrival.parts.get(ROSTER, ()))

        def without(old: Packed) -> Packed:
            return {contact: value for contact, value in old.items() if items.get(contact) != value}

        for kind in kinds:
            if kind == ROSTER:
                await self._rosters.rewrite(account, without, by="migrate", what="undo")
            else:
                await self._put(account, kind, None)
        raise AccountUnknown(account)

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
            found = begun(arrival, terms, self._now(), before, version, changed, stands)
            await self._store.put(ARRIVALS, found)
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
            now = await self._store.get(ACCOUNT, (account,))
            changed = now["changed"] if now is not None else changed
        is_new = is_same_run and mark is not None and mark["state"] == "done" and bool(mark["is_new"])
        stands |= standing_columns(arrival, columns)
        await self._told(account, "changed", terms.run)
        await self._store.put(ARRIVALS, done(arrival, version, changed, stands, is_new=is_new))

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

    async def _rewrite(self, account: str, edit: EditAll, terms: Terms) -> Rewrite:
        rewrite = await self._rosters.rewrite(account, edit, by=by(terms), what="import")
        if terms.live:
            await self._contacts.rewritten(account, rewrite)
        return rewrite

    async def _put(self, account: str, kind: str, value: Any) -> None:
        if kind == BLOCKS:
            await self._blocking.replace(account, value or (), is_bounded=False)
        else:
            await self._belongings()[kind].take(account, value)

    async def version(self, account: str) -> int:
        """The version of its roster, which is its last change in milliseconds since the epoch at least."""
        return await self._rosters.version(account)

    # giving

    async def give(self, account: str, kind: str) -> Any:
        """What the account has of a kind, in the form in which it would arrive; None for nothing."""
        [value] = await self._give(kind, [account])
        return value

    async def give_all(self, account: str) -> dict[str, Any]:
        """Everything it has, by kind."""
        [(_, parts)] = await self.give_many([account])
        return parts

    async def give_many(self, accounts: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
        """The roster's version of each of some accounts, and everything it has, by kind."""
        kinds = (BLOCKS, *self._belongings())
        rosters, *others = await asyncio.gather(
            self._rosters.packed(accounts), *(self._give(kind, accounts) for kind in kinds)
        )
        found = []
        for (version, roster), *values in zip(rosters, *others, strict=True):
            parts = {ROSTER: listed(roster), **dict(zip(kinds, values, strict=True))}
            found.append((version, {kind: it for kind, it in parts.items() if it is not None}))
        return found

    async def _give(self, kind: str, accounts: Sequence[str]) -> Sequence[Any]:
        if kind == ROSTER:
            return [listed(roster) for _, roster in await self._rosters.packed(accounts)]
        if kind == BLOCKS:
            return [addresses or None for addresses in await self._blocks.of_many(accounts)]
        belonging = self._belongings().get(kind)
        return await belonging.give_all(accounts) if belonging is not None else [None] * len(accounts)

    # what came later

    async def changed_here(
        self, row: Row, mark: Row | None, known: tuple[int, Mapping[str, Any]] | None = None
    ) -> tuple[str, ...] | None:
        """The kinds in which an account is another one than a run left it; None where none brought it. `row`
        is the account's, `mark` its row of `ARRIVALS`; what `give_many` gave of it need not be read.
        """
        if mark is None or mark["state"] != "done":
            return None
        account, stands = row["account"], standing_of(mark)
        found: list[str] = []
        version, parts = known or (await self._rosters.version(account), None)
        if version > (mark["version"] or 0):
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
        await self._told(account, "removed", mark["run"])
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
        await self._told(account, "restored", mark["run"])
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


def listed(roster: Packed) -> list[list[str]] | None:
    """A roster as JSON has it; None for an empty one."""
    return [list(item) for item in roster.items()] or None


def by(terms: Terms) -> str:
    """Who the roster's log says it was."""
    return f"migrate {terms.run}"


def given(arrival: Arrival) -> EditAll:
    """Makes a roster of what arrives, and of nothing else."""
    items = dict(arrival.parts.get(ROSTER, ()))
    return lambda old: items


def joined(old: Any, new: Any) -> Any:
    """What is there and what comes, together: of two with one name the one that is there."""
    if old is None or new is None:
        return new if old is None else old
    if isinstance(old, dict):
        return {**new, **old}
    if isinstance(old, list):
        return [*old, *(value for value in new if value not in old)]
    return old
