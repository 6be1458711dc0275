"""The mechanisms HT-SHA-256-* (draft-schmaus-kitten-sasl-ht-09), by which a client shows the token that it
was given at an earlier login (XEP-0484), the server's side.

The client sends its name and an HMAC by the token over the data of the channel binding; the server answers
with another one.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Mapping
from typing import NamedTuple, Protocol

from xmppd.errors import SaslError
from xmppd.stream.sasl import (
    Channel,
    Exchange,
    Identity,
    Standing,
    Step,
    Success,
    UserAgent,
    prepare_identity,
)
from xmppd.stream.scram import Credentials

BINDINGS: Mapping[str, str] = {
    "HT-SHA-256-EXPR": "tls-exporter",
    "HT-SHA-256-UNIQ": "tls-unique",
    "HT-SHA-256-ENDP": "tls-server-end-point",
    "HT-SHA-256-NONE": "",
}
"""Mechanism, the best first -> the type of channel binding that it takes, "" for none."""

HASH_BYTES = 32


class Shown(NamedTuple):
    """What a client shows of its token: `hashed` is made over `bound`, the data of the channel binding.
    `agent` has an id. `is_last`: the token counts no more afterwards.
    """

    mechanism: str
    agent: UserAgent
    hashed: bytes
    bound: bytes
    is_last: bool


class Redeemed(NamedTuple):
    """A token that was right: the account's credentials at that moment, or its standing, the server's answer,
    and the token that the client is to have from now on, if it is due for another one.
    """

    shown: Credentials | Standing
    answer: bytes
    token: object = None


class TokenSource(Protocol):
    """Where mechanisms find tokens; `account` is a bare JID."""

    def redeem(self, account: str, shown: Shown) -> Redeemed | Awaitable[Redeemed]:
        """Find the token that was shown. SaslError credentials-expired for one that was right once,
        not-authorized for anything else.
        """


def initiator_hash(token: bytes, bound: bytes) -> bytes:
    """What a client sends (3.1)."""
    return hmac.digest(token, b"Initiator" + bound, "sha256")


def responder_hash(token: bytes, bound: bytes) -> bytes:
    """What a server answers (3.3)."""
    return hmac.digest(token, b"Responder" + bound, "sha256")


class HashedToken:
    """One of the mechanisms. A client cannot choose it without a token in the way of XEP-0484."""

    priority = 0
    needs_tls = False  # where there is none, nothing of XEP-0388 is offered

    def __init__(self, name: str, source: TokenSource) -> None:
        self.name = name
        self.binding = BINDINGS[name]
        self.source = source

    def available(self, channel: Channel) -> bool:
        """Whether there is what it binds to."""
        return not self.binding or self.binding in channel.bindings

    def start(self, channel: Channel) -> Exchange:
        """A fresh exchange."""
        return _HashedTokenExchange(self, channel)


class _HashedTokenExchange:
    __slots__ = ("_channel", "_mechanism", "account")

    def __init__(self, mechanism: HashedToken, channel: Channel) -> None:
        self._mechanism = mechanism
        self._channel = channel
        self.account = ""

    def step(self, data: bytes) -> Step | Awaitable[Step]:
        mechanism, asked = self._mechanism, self._channel.asked
        name, _, hashed = data.partition(b"\0")
        if len(hashed) != HASH_BYTES or asked is None or asked.agent is None or not asked.agent.id:
            raise SaslError("malformed-request")
        try:
            jid = prepare_identity(name.decode(), "", self._channel)
        except UnicodeDecodeError:
            raise SaslError("malformed-request") from None
        self.account = jid.bare
        bound = self._channel.bindings[mechanism.binding] if mechanism.binding else b""
        shown = Shown(mechanism.name, asked.agent, hashed, bound, asked.is_last)
        found = mechanism.source.redeem(jid.bare, shown)
        if isinstance(found, Redeemed):
            return self._accept(jid.local, found)
        return self._accept_later(jid.local, found)

    async def _accept_later(self, local: str, finding: Awaitable[Redeemed]) -> Step:
        return self._accept(local, await finding)

    @staticmethod
    def _accept(local: str, found: Redeemed) -> Success:
        return Success(Identity(local, shown=found.shown), found.answer, found.token)
