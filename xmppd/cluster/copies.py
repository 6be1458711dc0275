"""Copies of messages (XEP-0280) between nodes: the node of the sender knows who wants some, and tells each
node once; what is delivered on a node is copied there by itself.

Copies go by the trunk and are not asked for again: those for a node that is lost are lost with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping
from typing import Any, Final

from xmppd.cluster.calls import Calls
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.parcels import Parcel
from xmppd.cluster.records import Copy, Message
from xmppd.core.carbons import Carbons, Copies, give
from xmppd.core.sessions import Session, Sessions
from xmppd.xml.stanza import read

HAD: Final = "session copies"


class RemoteCopies:
    """Sends copies to the sessions of other nodes, and takes those for sessions here."""

    def __init__(self, mesh: Mesh, sessions: Sessions, carbons: Carbons, calls: Calls) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._carbons = carbons
        self._calls = calls
        calls.serve(HAD, self._answer)

    def wants(self, account: str) -> bool:
        """See `Cluster.wants_copies`."""
        return self._mesh.whereabouts.wants_copies(account)

    def send(self, account: str, copies: Copies) -> None:
        """See `Cluster.copy`."""
        self._send(account, copies, ())

    def delivered(
        self, parcel: Parcel, here: Collection[Session], nodes: Collection[int], *, is_stored: bool = False
    ) -> None:
        """A message has gone to these sessions here and to those nodes, or `is_stored`: all others of the
        account who want copies are sent one, unless they were before.
        """
        account = parcel.to.bare
        live = self._sessions.accounts.get(account)
        is_wanted_here = live is not None and bool(live.carbons)
        if parcel.was_copied or not (is_wanted_here or self.wants(account)):
            return
        parcel.was_copied = True
        copies = self._carbons.received(account, live, parcel.stanza)
        if copies is None:
            return
        if live is not None:
            give(copies, live, here, is_stored=is_stored)
        self._send(account, copies, nodes, is_stored=is_stored)

    def _send(self, account: str, copies: Copies, but: Collection[int], *, is_stored: bool = False) -> None:
        nodes = {place.node for place in self._mesh.places(account) if place.wants_copies}
        for node in nodes.difference(but):
            record = Copy(account, copies.sender, copies.head, copies.tail, is_stored, copies.only)
            self._mesh.send(self._mesh.member(node), record, len(copies.head) + len(copies.tail) + 96)

    def had(self, account: str, seconds: Collection[int]) -> Awaitable[Collection[int]] | None:
        """See `Cluster.had_copies`."""
        nodes = {place.node for place in self._mesh.places(account) if place.wants_copies}
        return self._had(nodes, account, seconds) if nodes else None

    async def _had(self, nodes: Collection[int], account: str, seconds: Collection[int]) -> Collection[int]:
        about = {"account": account, "seconds": sorted(seconds)}
        asked = [self._calls.ask(self._mesh.member(node), HAD, about) for node in nodes]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return {second for answer in answers if isinstance(answer, list) for second in answer}

    # the node of who wants them

    async def _answer(self, asked: Mapping[str, Any]) -> list[int]:
        return [second for second in asked["seconds"] if self._carbons.have_had(asked["account"], second)]

    def take(self, member: Member, record: Copy) -> None:
        """Give the sessions here that want one their copies."""
        live = self._sessions.accounts.get(record.account)
        if live is not None:
            copies = Copies(record.sender, record.head, record.tail, record.only)
            give(copies, live, is_stored=record.is_stored)

    def taken(self, record: Message, receivers: Collection[Session]) -> None:
        """A message from another node was given to these sessions, others of whose account want copies."""
        [live] = {session.live for session in receivers}
        stanza = read(record.raw)
        copies = self._carbons.received(live.account, live, stanza)
        if copies is not None:
            give(copies, live, receivers)
            if stanza.type == "error":  # nobody else knows what it answers
                self._send(live.account, copies, ())
