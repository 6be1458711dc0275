"""What operators do with archives: look at them, shorten them, erase them, and find what is nobody's."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from xmppd.plugin import CommandError, Jid, Plugin, Table, cluster_signal, command, every, nobody

from .ids import MICROSECONDS, stamp_of
from .keeping import DAY_SECONDS, Keeper, Lives, everything, unknown

USAGE: Final = 2
SHORTER_SECONDS: Final = 3600.0
"""How often it is looked whether messages are to be kept for shorter than before."""
AGAIN_SECONDS: Final = DAY_SECONDS
"""How often those are deleted then that have become too old, and for how much longer than the time itself:
other nodes may be told of it later.
"""
TRIES: Final = 3
"""How often an archive is erased anew, when its owner's row was changed meanwhile."""

Account = Annotated[Jid, "an account"]


class Keeping(Plugin):
    """The part of the archive that deletes; its tables are those of the whole."""

    owners: Table
    messages: Table
    days: Table
    months: Table
    by_peer: Table
    shown: Table
    lives: Lives
    keeper: Keeper

    retentions = Table(
        partition=("domain",),
        columns={"days": "float", "shorter": "float", "until": "float", "pruned": "float"},
        person=nobody("how long messages of a domain are kept"),
    )

    def owner_changed(self, account: str) -> None:
        """Tell all nodes that the archive of an account is another one."""
        raise NotImplementedError

    @command("Show what an archive has of each month", reads=True)
    async def info(self, account: Account) -> list[dict[str, Any]]:
        """One row for each month, the oldest first: how many messages, their bytes, and when the first and
        the last of them were sent.
        """
        row, rows = await self.owners.get(account.bare), list[dict[str, Any]]()
        if row is None:
            return rows
        for number in await self.keeper.months_of(row["uid"]):
            if (month := await self.keeper.month(row["uid"], number)) is not None:
                name = f"{1970 + number // 12}-{number % 12 + 1:02d}"
                ends = {"first": stamp_of(month.first), "last": stamp_of(month.last)}
                rows.append({"month": name, "messages": month.messages, "bytes": month.size, **ends})
        return rows

    @command(
        "Delete what archives have from before a moment",
        confirm="Delete messages from before {before}?",
    )
    async def prune(
        self,
        *,
        before: Annotated[str, "a day or moment in UTC: 2026-11-28, 2026-11-28T20:00:00Z"],
        account: Annotated[Jid | None, "only in the archive of this one"] = None,
        domain: Annotated[str | None, "only in archives of accounts of this domain"] = None,
        all: Annotated[bool, "in all archives"] = False,
    ) -> dict[str, int]:
        """How many archives had such messages, and how many."""
        if [account is not None, domain is not None, all].count(True) != 1:
            raise CommandError("name an account or a domain, or give --all", USAGE)
        moment = _moment(before)
        if moment > self.now() * MICROSECONDS:
            raise CommandError(f"{before} is still to come", USAGE)
        if account is None:
            return await self._prune_all(lambda name: moment if domain in (None, _domain(name)) else 0)
        row = await self.owners.get(account.bare)
        deleted = 0 if row is None else await self.keeper.prune(row["uid"], moment)
        return {"archives": int(deleted > 0), "messages": deleted}

    @command("Erase all that an archive has", confirm="Erase the archive of {account}?")
    async def erase(self, account: Account) -> dict[str, Any]:
        """What was erased. What comes from then on is archived anew; preferences stay. A repeat finishes what
        was interrupted.
        """
        name = account.bare
        for _ in range(TRIES):
            row = await self.owners.get(name)
            if row is None:
                return {"account": name, "messages": 0, "days": 0, "months": 0}
            old = row["erased"]
            if old is None:
                fresh = {"account": name, "uid": secrets.randbits(63), "erased": row["uid"]}
                if not await self.owners.put_if(fresh, {"uid": row["uid"], "erased": None}):
                    continue
                old = row["uid"]
            self.owner_changed(name)
            counts = await self.keeper.count(old)
            await self.keeper.drop(old)
            await self.owners.put_if({"account": name, "erased": None}, {"erased": old})
            return {"account": name, **counts}
        raise CommandError(f"the archive of {name} was changed meanwhile; try again")

    @command("Find rows of archives that are nobody's any more")
    async def check(
        self,
        *,
        sweep: Annotated[bool, "delete them"] = False,
        thorough: Annotated[bool, "look at each message, too"] = False,
    ) -> dict[str, int]:
        """How many owners are unknown, and of those that were swept how many messages."""
        tables = [self.months, self.days, self.shown, *([self.messages, self.by_peer] if thorough else [])]
        found = await unknown(self.owners, tables)
        messages = 0
        for owner, months in found.items() if sweep else ():
            messages += (await self.keeper.count(owner, months))["messages"]
            await self.keeper.drop(owner, months)
        return {"unknown": len(found), "messages": messages}

    async def forget_owner(self, account: str) -> None:
        """Delete the archive of an account, and the rest of what was being erased."""
        row = await self.owners.get(account)
        self.owner_changed(account)
        if row is not None:
            for owner in {row["uid"], row["erased"]} - {None}:
                await self.keeper.drop(owner)
            await self.owners.delete(account)

    async def note_lives(self) -> None:
        """Note where messages are kept for another time from now on, and tell all nodes of longer ones."""
        is_new = not (await self.owners.some(limit=1)).rows
        for domain in self.server.domains:
            await self._kept_in(domain, is_new=is_new)

    async def _kept_in(self, domain: str, *, is_new: bool) -> Mapping[str, Any]:
        """What is noted of a domain by now; `is_new`: nothing was ever kept."""
        now, days, row = self.now(), self.lives.days_of(domain), await self.retentions.get(domain)
        was = row["days"] if row else 0.0
        if not days or days >= was > 0 or is_new:
            noted = _retention(domain, days)
            if row is None or row["days"] != days or row["shorter"] is not None:
                await self.retentions.put(noted)
                self.longer.tell(domain, days, now + AGAIN_SECONDS)
            return noted
        if row is None or row["shorter"] != days:
            until = now + days * DAY_SECONDS + AGAIN_SECONDS
            row = _retention(domain, was, shorter=days, until=until, pruned=0.0)
            await self.retentions.put(row)
        self.lives.longer(domain, was, row["until"] - days * DAY_SECONDS)
        return row

    @cluster_signal
    def longer(self, domain: str, days: float, until: float) -> None:
        """Another node keeps messages for so many days from now on, which may be longer than it is here."""
        self.lives.longer(domain, days, until)

    @every(SHORTER_SECONDS, once=True)
    async def shorten(self) -> None:
        """Where messages are to be kept for shorter than before, delete those that are too old. What was
        written before lives for longer, so that goes on until the last of it is too old.
        """
        now, due = self.now(), dict[str, Mapping[str, Any]]()
        is_new = not (await self.owners.some(limit=1)).rows
        for domain in self.server.domains:
            row = await self._kept_in(domain, is_new=is_new)
            if row["shorter"] is not None and now - row["pruned"] >= AGAIN_SECONDS:
                is_over = now >= row["until"]
                due[domain] = _retention(domain, row["shorter"]) if is_over else {**row, "pruned": now}
        if due:
            pruned = await self._prune_all(
                lambda name: self.lives.oldest(name) if _domain(name) in due else 0
            )
            self.log.info("archives-shortened", extra={"domains": sorted(due), **pruned})
        for row in due.values():
            await self.retentions.put(row)

    async def _prune_all(self, before: Callable[[str], int]) -> dict[str, int]:
        """Prune each archive; `before` says for an account from before which microsecond, 0 for none."""
        archives = messages = 0
        async for row in everything(self.owners):
            if (moment := before(row["account"])) and (some := await self.keeper.prune(row["uid"], moment)):
                archives += 1
                messages += some
        return {"archives": archives, "messages": messages}


def _domain(account: str) -> str:
    return account.rpartition("@")[2]


def _retention(
    domain: str,
    days: float,
    *,
    shorter: float | None = None,
    until: float | None = None,
    pruned: float | None = None,
) -> dict[str, Any]:
    """What is noted of a domain: messages live so many days; `shorter` from now on, for those that live for
    longer are deleted `until` then, which was done last at the moment `pruned`.
    """
    return {"domain": domain, "days": days, "shorter": shorter, "until": until, "pruned": pruned}


def _moment(text: str) -> int:
    """The microsecond of a moment as operators write it; CommandError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"before: {text!r} is no day or moment like 2026-11-28T20:00:00Z", USAGE) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(moment.timestamp() * MICROSECONDS)
