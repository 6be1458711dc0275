"""How two nodes greet each other, before there is a trunk: bytes in, bytes out.

    dialer                                                     listener
    Opening: protocols, nonce, whom it means, its Hello   ->
                                                          <-   Reply: protocol, nonce, its Hello
    Proof: that it knows the secret                       ->
                                                          <-   Welcome: the same, and perhaps a reason against
    frames of the trunk                                   <->  frames of the trunk

A proof is an HMAC-SHA256 by the secret that all nodes share, over the whole of Opening and Reply, in which
are both nonces, both names and all else that is said; the two sides' proofs differ. The listener proves
nothing to who has proved nothing, so a stranger gets nothing to try secrets on. Instead of an answer a
Refusal may come, which is not proved: it explains, and decides nothing.

Each message is framed by its length and has at most `LONGEST` bytes. How long all this may take is up to who
holds the connection (`GREETING_SECONDS`).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct

from xmppd.cluster.framing import framed

LOWEST, HIGHEST = 2, 2
"""The protocols that this version speaks: its own, and that of the version before, once one was released. In
the first one `Shown` had other fields.
"""

LONGEST: Final = 4096
"""Bytes of a message."""

GREETING_SECONDS: Final = 5.0
"""How long greeting each other may take, from the first byte on."""

SECRETS: Final = 2
"""How many secrets are tried: after Redis was lost nodes may hold two for a while."""

PROTOCOL: Final = "other-protocol"
"""The two have no protocol in common."""

SECRET: Final = "wrong-secret"
"""The other does not know the secret, or another one."""

NO_SECRET: Final = "no-secret-yet"
"""The listener does not know the secret itself."""

NOT_ME: Final = "not-me"
"""The address is that of another node than the dialer meant."""

NAMESAKE: Final = "same-name"
"""Both have one name: they are one, or one of them must stop."""

TURN: Final = "not-its-turn"
"""The node with the smaller name is the one that dials."""

RUBBISH: Final = "rubbish"
"""What came is no greeting."""

_MAGIC = "xmppd-trunk"
_PROOF = 32

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Text = Annotated[str, Meta(max_length=300)]
_Bytes = Annotated[bytes, Meta(min_length=_PROOF, max_length=_PROOF)]
_Protocol = Annotated[int, Meta(ge=1, lt=2**31)]


class Hello(Struct, array_like=True, frozen=True, kw_only=True):
    """What a node says of itself. `incarnation`: this life of it, larger than that of any before.
    `trunk`: the id of the one it has with the other, and `taken` the last frame it took of it; 0 and 0
    without. `addresses`: where it is reached, the best one first. `version`: of the program, for logs.
    """

    name: Annotated[str, Meta(min_length=1, max_length=300)]
    incarnation: _Count
    trunk: _Count = 0
    taken: _Count = 0
    addresses: Annotated[tuple[_Text, ...], Meta(max_length=8)] = ()
    version: Annotated[str, Meta(max_length=60)] = ""


class _Opening(Struct, array_like=True, frozen=True, tag=1):
    magic: str
    lowest: _Protocol
    highest: _Protocol
    nonce: _Bytes
    meant: _Text
    is_knock: bool
    hello: Hello


class _Reply(Struct, array_like=True, frozen=True, tag=2):
    protocol: _Protocol
    nonce: _Bytes
    hello: Hello


class _Proof(Struct, array_like=True, frozen=True, tag=3):
    proofs: Annotated[tuple[_Bytes, ...], Meta(min_length=1, max_length=SECRETS)]


class _Welcome(Struct, array_like=True, frozen=True, tag=4):
    proof: _Bytes
    reason: _Text


class _Refusal(Struct, array_like=True, frozen=True, tag=5):
    reason: _Text


_Message = _Opening | _Reply | _Proof | _Welcome | _Refusal
_DECODER: Final = msgspec.msgpack.Decoder(_Message)
_ENCODER: Final = msgspec.msgpack.Encoder()


class Greeting(NamedTuple):
    """Two nodes that know the secret have greeted each other: what both said, and in which protocol they
    go on.

    `trunk`: the id of the trunk, the one that both had (`is_resumed`) or a new one that both know by
    now. `said`: when this node said what it said, by its own clock: since then the other has heard of
    it. `is_knock`: the dialer wanted no more than to know who is there.
    """

    own: Hello
    peer: Hello
    protocol: int
    trunk: int
    is_resumed: bool
    said: float
    is_knock: bool


class Refused(NamedTuple):
    """They will not go on. `peer`: who the other is, if that was proved."""

    reason: str
    peer: Hello | None


class _Refuse(Exception):
    """This side ends the greeting; the other is sent the reason."""


class _Handshake:
    """What both sides have in common. `outcome` is None until it has ended; then `rest` has the bytes
    that came behind it.
    """

    def __init__(self, secrets: Sequence[bytes], clock: Callable[[], float]) -> None:
        self.outcome: Greeting | Refused | None = None
        self._secrets = tuple(secrets)[:SECRETS]
        self._clock = clock
        self._said = 0.0
        self._buffer = bytearray()

    @property
    def rest(self) -> bytes:
        """What came behind the greeting."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """Take what came; what is to be sent."""
        self._buffer += data
        answer = b""
        while self.outcome is None and len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big")
            if size > LONGEST:
                return answer + self._refuse(RUBBISH)
            if len(self._buffer) < 4 + size:
                break
            raw = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            answer += self._taken(raw)
        return answer

    def _taken(self, raw: bytes) -> bytes:
        try:
            message = _DECODER.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._refuse(RUBBISH)
        if isinstance(message, _Refusal):
            self.outcome = Refused(message.reason if message.reason in _REASONS else RUBBISH, None)
            return b""
        try:
            return self._answer(message, raw)
        except _Refuse as error:
            return self._refuse(str(error))

    def _answer(self, message: _Message, raw: bytes) -> bytes:
        raise NotImplementedError

    def _refuse(self, reason: str) -> bytes:
        self.outcome = Refused(reason, None)
        return framed(_ENCODER.encode(_Refusal(reason)))

    def _end(self, own: Hello, peer: Hello, protocol: int, digest: bytes, *, is_knock: bool) -> None:
        is_resumed = own.trunk == peer.trunk != 0
        trunk = own.trunk if is_resumed else _new_trunk(digest)
        self.outcome = Greeting(own, peer, protocol, trunk, is_resumed, self._said, is_knock)


class Dialer(_Handshake):
    """The side that connected. `meant`: the name of whom it wants to reach, "" if it knows no more than
    an address: then it can only knock.
    """

    def __init__(
        self,
        own: Hello,
        meant: str,
        secrets: Sequence[bytes],
        clock: Callable[[], float],
        *,
        is_knock: bool = False,
    ) -> None:
        super().__init__(secrets, clock)
        self._own = own
        self._meant = meant
        self._is_knock = is_knock or not meant
        self._opening = b""
        self._reply: _Reply | None = None
        self._digest = b""

    def begin(self) -> bytes:
        """What is sent first."""
        self._said = self._clock()
        self._opening = _ENCODER.encode(
            _Opening(_MAGIC, LOWEST, HIGHEST, _nonce(), self._meant, self._is_knock, self._own)
        )
        return framed(self._opening)

    def _answer(self, message: _Message, raw: bytes) -> bytes:
        if isinstance(message, _Reply) and self._reply is None:
            return self._prove(message, raw)
        if isinstance(message, _Welcome) and self._reply is not None:
            self._enter(message, self._reply)
            return b""
        raise _Refuse(RUBBISH)

    def _prove(self, reply: _Reply, raw: bytes) -> bytes:
        if not LOWEST <= reply.protocol <= HIGHEST:
            raise _Refuse(PROTOCOL)
        if self._meant and reply.hello.name != self._meant:
            raise _Refuse(NOT_ME)
        if not self._secrets:
            raise _Refuse(NO_SECRET)
        self._reply = reply
        self._digest = _digest(self._opening, raw)
        proofs = tuple(_proof(secret, b"dialer", self._digest) for secret in self._secrets)
        return framed(_ENCODER.encode(_Proof(proofs)))

    def _enter(self, welcome: _Welcome, reply: _Reply) -> None:
        role = b"listener " + welcome.reason.encode()
        if not _is_proved((welcome.proof,), self._secrets, role, self._digest):
            raise _Refuse(SECRET)
        if welcome.reason:
            self.outcome = Refused(welcome.reason, reply.hello)
        else:
            self._end(self._own, reply.hello, reply.protocol, self._digest, is_knock=self._is_knock)


class Listener(_Handshake):
    """The side that was connected to. `hello_of` tells what to say to a node of this name."""

    def __init__(
        self, hello_of: Callable[[str], Hello], secrets: Sequence[bytes], clock: Callable[[], float]
    ) -> None:
        super().__init__(secrets, clock)
        self._hello_of = hello_of
        self._opening: _Opening | None = None
        self._own: Hello | None = None
        self._protocol = 0
        self._digest = b""

    def _answer(self, message: _Message, raw: bytes) -> bytes:
        if isinstance(message, _Opening) and self._opening is None:
            return self._reply(message, raw)
        if isinstance(message, _Proof) and self._opening is not None and self._own is not None:
            return self._welcome(message, self._opening, self._own)
        raise _Refuse(RUBBISH)

    def _reply(self, opening: _Opening, raw: bytes) -> bytes:
        protocol = min(HIGHEST, opening.highest)
        if opening.magic != _MAGIC:
            raise _Refuse(RUBBISH)
        if protocol < max(LOWEST, opening.lowest):
            raise _Refuse(PROTOCOL)
        if not self._secrets:
            raise _Refuse(NO_SECRET)
        own = self._hello_of(opening.hello.name)
        if opening.meant not in ("", own.name):
            raise _Refuse(NOT_ME)
        self._opening, self._own, self._protocol = opening, own, protocol
        self._said = self._clock()
        reply = _ENCODER.encode(_Reply(protocol, _nonce(), own))
        self._digest = _digest(raw, reply)
        return framed(reply)

    def _welcome(self, proof: _Proof, opening: _Opening, own: Hello) -> bytes:
        secret = _is_proved(proof.proofs, self._secrets, b"dialer", self._digest)
        if secret is None:
            raise _Refuse(SECRET)
        peer = opening.hello
        reason = ""
        if peer.name == own.name:
            reason = NAMESAKE
        elif peer.name > own.name and not opening.is_knock:
            reason = TURN
        if reason:
            self.outcome = Refused(reason, peer)
        else:
            self._end(own, peer, self._protocol, self._digest, is_knock=opening.is_knock)
        proved = _proof(secret, b"listener " + reason.encode(), self._digest)
        return framed(_ENCODER.encode(_Welcome(proved, reason)))


_REASONS = frozenset({PROTOCOL, SECRET, NO_SECRET, NOT_ME, NAMESAKE, TURN, RUBBISH})


def _nonce() -> bytes:
    return secrets.token_bytes(_PROOF)


def _digest(opening: bytes, reply: bytes) -> bytes:
    return hashlib.sha256(framed(opening) + framed(reply)).digest()


def _proof(secret: bytes, role: bytes, digest: bytes) -> bytes:
    return hmac.digest(secret, b"xmppd trunk, " + role + b"\0" + digest, "sha256")


def _is_proved(proofs: Sequence[bytes], secrets: Sequence[bytes], role: bytes, digest: bytes) -> bytes | None:
    """The secret by which one of the proofs was made. All are compared, whatever the first ones say."""
    found = None
    for secret in reversed(secrets):
        right = _proof(secret, role, digest)
        for proof in proofs:
            if hmac.compare_digest(proof, right):
                found = secret
    return found


def _new_trunk(digest: bytes) -> int:
    """An id that both sides can tell and no other greeting has; not 0."""
    return int.from_bytes(hashlib.sha256(b"trunk" + digest).digest()[:7], "big") + 1
