"""What both profiles of SASL (RFC 6120 6, XEP-0388) do with the attempts of a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from xmppd import ns
from xmppd.errors import SaslError, StreamError
from xmppd.stream.rows import Negotiable, Waiting
from xmppd.stream.sasl import Authenticator, Challenge, Channel, Gate, Step, Success


class Attempts(ABC):
    """Steps are taken by the stream's `Authenticator`, and told as the profile has it; `gate` hears of what
    was refused without one.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    @abstractmethod
    def _answer(self, stream: Negotiable, step: Step) -> Waiting:
        """Tell a challenge, or a success."""

    @abstractmethod
    def _failure(self, error: SaslError) -> bytes:
        """What tells a refusal."""

    def _take(self, stream: Negotiable, step: Callable[[], Step | Awaitable[Step]]) -> Waiting:
        """Take a step, and answer."""
        try:
            taken = step()
        except SaslError as error:
            self._refuse(stream, error)
            return None
        if isinstance(taken, (Challenge, Success)):
            return self._answer(stream, taken)
        return self._answer_later(stream, taken)

    async def _answer_later(self, stream: Negotiable, step: Awaitable[Step]) -> None:
        try:
            taken = await step
        except SaslError as error:
            self._refuse(stream, error)
            return
        if (waiting := self._answer(stream, taken)) is not None:
            await waiting

    def _refuse_at_once(self, stream: Negotiable, error: SaslError) -> None:
        """Refuse what no `Authenticator` was asked."""
        link = stream.link
        self._gate.refused(Channel(stream.domain, link.secure, peer=link.peer), error)
        self._refuse(stream, error)

    def _refuse(self, stream: Negotiable, error: SaslError) -> None:
        """Say why, and end the stream when it was one try too many (RFC 6120 6.4.5)."""
        stream.exchanging(False)
        stream.write(self._failure(error))
        authenticator: Authenticator | None = stream.kept.get(ns.SASL)
        if authenticator is not None and authenticator.exhausted:
            stream.fail(StreamError("policy-violation", "Too many attempts to log in."))


def authenticator_of(stream: Negotiable) -> Authenticator:
    """The attempts of a stream on which mechanisms were offered."""
    authenticator: Authenticator = stream.kept[ns.SASL]
    return authenticator
