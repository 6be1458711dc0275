"""What nobody keeps is given to who is there, though he is being given what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from xmppd.cluster.mesh import Mesh, Met
from xmppd.cluster.messages import RemoteMessages
from xmppd.cluster.parcels import FLUSHING, Parcel
from xmppd.cluster.whereabouts import Place
from xmppd.core.fates import Fates
from xmppd.core.ids import HybridClock
from xmppd.core.messages import Otherwise
from xmppd.core.output import Cork
from xmppd.core.sessions import LiveAccount, Sessions
from xmppd.errors import StanzaError
from xmppd.hooks import Outcome
from xmppd.jid import Jid
from xmppd.xml.stanza import Stanza

BOB = "bob@localhost"
MESSAGE = Stanza("message", {"to": BOB, "type": "chat"}, b"<message/>")


def busy(resource: str, priority: int, got: list[str]) -> Any:
    """An available session that is being given what is stored."""
    return SimpleNamespace(
        resource=resource,
        full=f"{BOB}/{resource}",
        priority=priority,
        presence="some",
        is_flushing=True,
        takes_messages=False,
        flush=lambda: None,
        hold_messages=lambda what: None,
        release_messages=lambda what: None,
        send=lambda data: got.append(resource),
    )


def kept_by_nobody(to: Jid, stanza: Stanza, otherwise: Any) -> Outcome:
    """What the core does with a message that no plugin keeps."""
    found: Outcome | None = otherwise(stanza, to)
    if found is None:
        raise StanzaError("service-unavailable")
    return found


class Node:
    """A node that bob has a session at, and another one; `keep` says what becomes of what is to be stored."""

    def __init__(self, keep: Callable[[Jid, Stanza, Otherwise], Outcome]) -> None:
        nothing: Any = lambda *_, **__: None  # noqa: E731
        self.sessions = Sessions(Cork(lambda do: do()), lambda: 0.0)
        time = HybridClock(lambda: 0.0)
        mesh = self.mesh = Mesh("here:1", 1, self.sessions, nothing, lambda: 0.0, nothing, time)
        self.member = mesh.met(Met("there:1", 1, 1, 0, 0.0), SimpleNamespace(write=nothing, close=nothing))
        blocks: Any = SimpleNamespace(bars=lambda *_: False)
        copies: Any = SimpleNamespace(delivered=nothing, wants=lambda _: False)
        self.messages = RemoteMessages(
            mesh,
            self.sessions,
            blocks,
            copies,
            keep,
            nothing,
            asyncio.create_task,
            lambda: 0.0,
            Fates(lambda: 0.0),
        )

    async def unkept(self) -> Parcel:
        """A message that was sent to the other node once more, since nobody kept it; he left there since."""
        self.mesh.whereabouts.put(BOB, Place(self.member.index, "there", 1, 0))
        origin: Any = None
        parcel = self.messages.route(origin, MESSAGE, Jid.parse(BOB), "chat")
        assert isinstance(parcel, Parcel)
        parcel.missed(StanzaError(FLUSHING))
        await asyncio.sleep(0)
        assert parcel.is_unkept and parcel.left == 1, "it is to be given to him all the same"
        self.mesh.whereabouts.end(BOB, self.member.index, "there", 1)
        return parcel


@pytest.mark.asyncio
async def test_what_nobody_keeps_goes_to_who_is_given_what_is_stored_here() -> None:
    """It was sent to another node, where he was given what was stored as well, and which he left since."""
    node = Node(kept_by_nobody)
    parcel = await node.unkept()
    got: list[str] = []
    live = node.sessions.accounts[BOB] = LiveAccount(BOB)
    priorities = (("low", 0), ("high", 5), ("away", -1))
    live.sessions = tuple(busy(resource, priority, got) for resource, priority in priorities)
    live.refresh()
    parcel.missed(StanzaError("service-unavailable"))
    assert await parcel is Outcome.DELIVERED
    assert got == ["high"]


@pytest.mark.asyncio
async def test_what_was_not_kept_while_somebody_was_there_is_kept_when_he_has_gone() -> None:
    node = Node(lambda to, stanza, otherwise: otherwise(stanza, to) or Outcome.KEPT)  # type: ignore[arg-type, return-value]
    parcel = await node.unkept()
    parcel.missed(StanzaError("service-unavailable"))
    assert await parcel is Outcome.KEPT
