"""What operators do with announcements."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from xmppd.plugin import CommandError, Jid, JidError, Secret, command, utc_stamp

from .crier import CANCELLED, KIND, RUNNING, SLICE, Announcement, of_row, online
from .segment import Segment, accounts_in, checked, nodes_of

if TYPE_CHECKING:
    from . import Announce

PACE: Final = 500
MOST_PACE: Final = 10_000
MOST_RUNNING: Final = 10
KEPT: Final = 100
"""How many announcements are remembered."""
EXAMPLES: Final = 5
MOST_COUNTED: Final = 100_000
"""Accounts that a preview looks at, where all are meant."""
MOST_TEXT: Final = 10_000
"""Characters of what is said."""
SHOWN: Final = 60
TYPES: Final = ("headline", "normal", "chat")
NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class AnnounceCommands:
    """The commands of the plugin about announcements."""

    @property
    def _it(self) -> Announce:
        return cast("Announce", self)

    @command("Send a message to everybody who is online, or to a part of all")
    async def send(
        self,
        text: Annotated[str, "what to say"],
        *,
        subject: Annotated[str, "its title"] = "",
        domain: Annotated[list[str] | None, "only to accounts of this domain"] = None,
        prefix: Annotated[list[str] | None, "only to accounts whose address begins so"] = None,
        client: Annotated[
            list[str] | None,
            "only to whom has a client with this in the name of software, device, resource or caps",
        ] = None,
        node: Annotated[list[str] | None, "only to whom has a session on this node"] = None,
        account: Annotated[list[str] | None, "only to these"] = None,
        accounts: Annotated[str, Secret("only to those in this file, one a line", lines=True)] = "",
        all: Annotated[bool, "to those too who are not online: it is kept for them"] = False,
        type: Annotated[str | None, "headline, normal or chat"] = None,
        pace: Annotated[int | None, "how many receivers are told in a second"] = None,
        preview: Annotated[bool, "only say how many receivers there are, and where"] = False,
    ) -> dict[str, Any]:
        """With no option to how many sessions it was sent; otherwise the `id` of what has begun, and how many
        receivers there are, if that is known.
        """
        it, said = self._it, sendable(text)
        named = accounts_in([*(account or ()), *accounts.splitlines()], it.server.domains)
        segment = Segment(
            tuple(domains_of(domain or ())),
            tuple(prefix or ()),
            tuple(client or ()),
            tuple(node or ()),
            everyone=all,
            listed=bool(account or accounts),
        )
        checked(segment, it.server.domains, (it.server.node, *it.server.other_nodes()))
        if segment.listed and not named:
            raise CommandError("no account is named", field="accounts")
        if preview:
            return await self._preview(segment, named)
        if segment == Segment() and not subject and type is None and pace is None:
            return {"sent": await it.announce("", said)}
        if len(said) > MOST_TEXT:
            raise CommandError(f"such a text has at most {MOST_TEXT} characters", field="text")
        about = Announcement(
            f"{int(it.now() * 1000):012x}{secrets.token_hex(2)}",
            said,
            subject and sendable(subject),
            kind_of(type, segment),
            segment,
            pace_of(pace),
            it.now(),
            total=await self._count(segment, named),
        )
        await self._begin(about, [one for one in named if segment.names(one)])
        return {"id": about.id, "receivers": about.total}

    @command("List announcements that go on, and the last ones", name="announce list", reads=True)
    async def every(self) -> list[dict[str, Any]]:
        """One row for each, the newest first. `interrupted`: the node that told it is gone, and another one
        will go on.
        """
        return [self._shown(about) for about in reversed(await self._it.known())]

    @command(
        "Cancel an announcement that goes on; whom it has reached it has reached", name="announce cancel"
    )
    async def cancel(self, id: Annotated[str, "as `announce list` shows it"]) -> dict[str, Any]:
        """How far it had got when it was written last."""
        it = self._it
        row = await it.announcements.get(KIND, id)
        if row is None:
            raise CommandError(f"there is no announcement {id!r}", field="id")
        changed = {"kind": KIND, "id": id, "state": CANCELLED, "place": "", "ended": it.now()}
        if not await it.announcements.put_if(changed, {"state": RUNNING}):
            raise CommandError(f"this announcement is {row['state']}", field="id")
        it.ended.tell(id)
        await it.receivers.delete(id)
        now = of_row(await it.announcements.get(KIND, id) or row)
        return {"cancelled": id, "told": now.told, "receivers": now.total}

    # how

    async def _begin(self, about: Announcement, named: Sequence[str]) -> None:
        it = self._it
        known = await it.known()
        if sum(one.state == RUNNING for one in known) >= MOST_RUNNING:
            raise CommandError(f"{MOST_RUNNING} announcements go on already, as many as there may be")
        for old in [one for one in known if one.state != RUNNING][: max(0, len(known) - KEPT + 1)]:
            await it.announcements.delete_if(KIND, old.id, expect={"state": old.state})
        writer = it.receivers.writer(("announcement", "number", "account"))
        for start in range(0, len(named), SLICE):
            some = enumerate(named[start : start + SLICE], start)
            await it.receivers.write([writer.row(about.id, number, account) for number, account in some])
        await it.begin(about)

    async def _count(self, segment: Segment, named: Sequence[str]) -> int | None:
        if segment.listed:
            return sum(map(segment.names, named))
        if segment.everyone:
            return None
        return sum([1 async for _ in online(self._it, segment)])

    async def _preview(self, segment: Segment, named: Sequence[str]) -> dict[str, Any]:
        """`receivers` by node, `offline` for who is not online; `complete`: all were counted."""
        counts, examples, number, is_complete = dict[str, int](), list[str](), 0, True
        looked = 0
        async for some, count in self._meant(segment, named):
            if looked >= MOST_COUNTED:
                is_complete = False
                break
            looked += count
            for account in some:
                number += 1
                examples += [account] if len(examples) < EXAMPLES else []
                for node in nodes_of(self._it, account) or {"offline"}:
                    counts[node or "here"] = counts.get(node or "here", 0) + 1
        return {
            "receivers": number,
            "complete": is_complete,
            "nodes": [f"{node}: {count}" for node, count in sorted(counts.items())],
            "examples": sorted(examples),
        }

    async def _meant(
        self, segment: Segment, named: Sequence[str]
    ) -> AsyncIterator[tuple[Sequence[str], int]]:
        """Some at a time, and how many were looked at for that."""
        it = self._it
        if segment.listed:
            for start in range(0, len(named), SLICE):
                some = [*filter(segment.names, named[start : start + SLICE])]
                if not segment.everyone:
                    some = await segment.present(it, filter(it.server.is_connected, some))
                yield some, 0
                await asyncio.sleep(0)
        elif segment.everyone:
            token: bytes | None = None
            while True:
                page, token = await it.server.accounts.page(token, SLICE)
                yield [*filter(segment.names, page)], len(page)
                if token is None:
                    return
        else:
            async for account in online(it, segment):
                yield [account], 0  # however many there are, they are in memory

    def _shown(self, about: Announcement) -> dict[str, Any]:
        it = self._it
        crier = it.criers.get(about.id)
        state = about.state
        if crier is not None and state == RUNNING:
            about = crier.about
        elif state == RUNNING and not it.is_held(about):
            state = "interrupted"
        return {
            "id": about.id,
            "state": state,
            "receivers": about.total,
            "told": about.told,
            "sent": about.sent,
            "refused": about.refused,
            "pace": about.pace,
            "node": about.node,
            "to": about.segment.shown,
            "type": about.type,
            "begun": moment(about.begun),
            "ended": moment(about.ended),
            "text": about.text if len(about.text) <= SHOWN else f"{about.text[: SHOWN - 1]}…",
        }


def moment(seconds: float | None) -> str:
    """For people, in UTC; "" for one that has not come."""
    return "" if seconds is None else utc_stamp(seconds)


def domains_of(texts: Sequence[str]) -> list[str]:
    """In normal form; CommandError."""
    try:
        return [Jid.parse(text).domain for text in texts]
    except JidError as error:
        raise CommandError(f"this is no domain: {error}", field="domain") from None


def kind_of(given: str | None, segment: Segment) -> str:
    """The type of the messages; CommandError."""
    found = given or ("normal" if segment.everyone else "headline")
    if found not in TYPES:
        raise CommandError(f"type must be one of {', '.join(TYPES)}", field="type")
    if found == "headline" and segment.everyone:
        raise CommandError("a headline is kept for nobody: normal or chat is, with --all", field="type")
    return found


def pace_of(given: int | None) -> int:
    """Receivers a second; CommandError."""
    if given is not None and not 0 < given <= MOST_PACE:
        raise CommandError(f"pace must be 1 to {MOST_PACE}", field="pace")
    return given or PACE


def sendable(text: str) -> str:
    """The text itself; CommandError when XML cannot hold it, or there is none."""
    if not text or NOT_XML.search(text):
        raise CommandError("the text must not be empty, and holds no control characters")
    return text
