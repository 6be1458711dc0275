"""Tokens that hold no more: what is written of them, and what ends because of it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from xmppd.plugin import CommandError, Jid, Session, cluster_signal, command, every, happened, utc_stamp

from .claims import BY, TEXT

if TYPE_CHECKING:
    from . import GameLogin

HOUR: Final = 3_600.0
LOOK_SECONDS: Final = 5.0
"""How often a node looks whether it was not told of something."""
OVERLAP: Final = 60.0
"""Clocks of nodes, and writes under way, may differ by so much."""
SLICE: Final = 500
"""Sessions that are looked at before others get their turn."""
LISTED: Final = 1_000
REMEMBERED: Final = 10_000
Row = dict[str, Any]
ACCOUNT, TOKEN, ISSUER = "account", "token", "issuer"


class Revocations:
    """The commands, and what nodes tell each other."""

    @property
    def _it(self) -> GameLogin:
        return cast("GameLogin", self)

    # commands

    @command("Let tokens of a player count no more, and end the sessions that they let in")
    async def revoke(
        self,
        account: Annotated[Jid, "the player"],
        *,
        before: Annotated[str, "only those issued before this moment, as 2026-11-30T12:00:00Z"] = "",
    ) -> dict[str, Any]:
        """Those that were issued until now; who logs in by another one is let in."""
        if not account.local:
            raise CommandError("this is the address of no account", 2, field="account")
        moment = self._moment(before)
        row: Row = {"account": account.bare, "before": micros(moment)}
        return await self._revoke(row, ACCOUNT, account.bare, moment)

    @command("Let one token count no more, and end the sessions that it let in")
    async def revoke_token(
        self,
        id: Annotated[str, "its claim jti"],
        *,
        issuer: Annotated[str, "its claim iss; needed where there are several"] = "",
    ) -> dict[str, Any]:
        """By its id alone: it need not have been seen."""
        if not 0 < len(id) <= TEXT or not id.isprintable():
            raise CommandError(f"the id of a token has 1 to {TEXT} characters", 2, field="id")
        name = self._issuer(issuer)
        row: Row = {"key": key_of(TOKEN, name, id), "before": micros(self._it.now())}
        return await self._revoke(row, TOKEN, f"{name} {id}", None)

    @command("Let all tokens of an issuer count no more that it issued before a moment")
    async def revoke_before(
        self,
        moment: Annotated[str, "as 2026-11-30T12:00:00Z, or now"],
        *,
        issuer: Annotated[str, "its claim iss; needed where there are several"] = "",
    ) -> dict[str, Any]:
        """For a key that is not secret any more, or a mistake in what was issued."""
        name, before = self._issuer(issuer), self._moment("" if moment == "now" else moment)
        row: Row = {"key": key_of(ISSUER, name, ""), "before": micros(before)}
        return await self._revoke(row, ISSUER, name, before)

    @command("List what was revoked and may still be shown, of the last hours", reads=True)
    async def revocations(self) -> list[dict[str, Any]]:
        """The newest first."""
        found: list[Mapping[str, Any]] = []
        hour = int(self._it.now() // HOUR)
        for number in range(int(self._it.lasting // HOUR) + 2):
            found += (await self._it.recent.scan(str(hour - number), limit=LISTED)).rows
            if len(found) >= LISTED:
                break
        found.sort(key=lambda row: -float(row["at"]))
        return [
            {
                "at": shown(row["at"]),
                "kind": row["kind"],
                "what": row["value"],
                "before": shown(row["before"]),
            }
            for row in found[:LISTED]
        ]

    def _moment(self, text: str) -> float:
        if not text:
            return self._it.now()
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise CommandError(
                f"{text!r} is no moment like 2026-11-30T12:00:00Z", 2, field="before"
            ) from None
        moment = (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
        return min(moment, self._it.now())

    def _issuer(self, name: str) -> str:
        known: frozenset[str] = self._it.issuers
        if name in known:
            return name
        if name or len(known) != 1:
            raise CommandError(f"the issuer must be one of {', '.join(sorted(known))}", 2, field="issuer")
        return next(iter(known))

    async def _revoke(self, revoked: Row, kind: str, value: str, before: float | None) -> dict[str, Any]:
        """Write it, have all nodes act by it, and those that are not told now a little later."""
        it, now = self._it, self._it.now()
        id = f"{int(now * 1e6):020d}-{secrets.token_hex(4)}"
        row: Row = {"hour": str(int(now // HOUR)), "id": id, "at": now, "kind": kind, "value": value}
        account = value if kind == ACCOUNT else ""
        async with it.ended_told.around(account, revoked, kind=kind):
            await (it.ended if account else it.revoked).put_newest(revoked, ttl=it.lasting)
            await it.recent.put({**row, "before": before}, ttl=it.lasting)
            it.known.put(id, True)
            it.over.tell(kind, value, before)
            await it.ended_told.emit(account, kind=kind)
        return {"revoked": value, "kind": kind, "before": shown(before)}

    @happened("game-login.revoked")
    async def was_revoked(self, account: str, data: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
        """Whether what was about to be revoked is, by what is written now."""
        it = self._it
        row = await (it.ended.get(account) if account else it.revoked.get(about["key"]))
        return row is not None and bool(row["before"] >= about["before"])

    # what holds

    async def is_revoked(self, account: str, player: Mapping[str, Any]) -> bool:
        """Whether a token counts no more, by what is written now; StoreError. `player`: its facts."""
        it, issuer, id = self._it, player["issuer"], player["token_id"]
        keys = [key_of(ISSUER, issuer, ""), *([key_of(TOKEN, issuer, id)] if id else [])]
        row, rows = await asyncio.gather(it.ended.get(account), it.revoked.get_many(keys))
        moments = [found["before"] for found in (row, rows[0]) if found is not None]
        return any(micros(player["issued"]) <= moment for moment in moments) or any(rows[1:])

    # what ends

    @cluster_signal
    def over(self, kind: str, value: str, before: float | None) -> None:
        """Tokens were revoked, by whatever node."""
        self._it.heard += 1
        self._it.spawn(self._end(kind, value, before))

    async def _end(self, kind: str, value: str, before: float | None) -> None:
        it = self._it
        sessions = it.server.sessions(value) if kind == ACCOUNT else it.server.online()
        for number, session in enumerate(sessions):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if is_meant(session, kind, value, before):
                it.end(session)

    @every(LOOK_SECONDS)
    async def look(self) -> None:
        """Act by what other nodes wrote and did not tell."""
        it = self._it
        if not it.server.has_other_nodes:
            return
        now, since = it.now(), f"{int((it.now() - OVERLAP) * 1e6):020d}"
        for hour in {int((now - OVERLAP) // HOUR), int(now // HOUR), int((now + OVERLAP) // HOUR)}:
            for row in (await it.recent.scan(str(hour), start=(since,), limit=LISTED)).rows:
                if not it.known.get(row["id"]):
                    it.known.put(row["id"], True)
                    it.heard += 1
                    await self._end(row["kind"], row["value"], row["before"])


def is_meant(session: Session, kind: str, value: str, before: float | None) -> bool:
    """Whether the token that let a session in is one of those that were revoked."""
    facts = session.facts
    if facts.get("by") != BY or session.is_over:
        return False
    if kind == TOKEN:
        return bool(facts["token_id"]) and f"{facts['issuer']} {facts['token_id']}" == value
    if kind == ISSUER and facts["issuer"] != value:
        return False
    return before is None or bool(facts["issued"] <= before)


def micros(moment: float) -> int:
    """A moment as the store orders rows by it."""
    return int(moment * 1_000_000)


def key_of(kind: str, issuer: str, id: str) -> str:
    """Where it stands in the store."""
    return f"{kind} {issuer} {id}"


def shown(moment: float | None) -> str:
    """For people, in UTC; "" for none."""
    return "" if moment is None else utc_stamp(moment)
