"""SCRAM-SHA-1, SCRAM-SHA-256 and SCRAM-SHA-512 with and without channel binding (RFC 5802, 7677, 5929, 9266,
draft-melnikov-scram-sha-512), with the downgrade protection of XEP-0474, the server's side.

Written over hashlib and hmac, although scramp is the library at hand: its server takes `p=` for a mechanism
without -PLUS, knows no tls-exporter, binds one type chosen before the client speaks, rebuilds the signed
message from parsed attributes instead of taking the bytes that came, and answers an unknown user at once. The
tests use its client side as the independent opinion.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol

from xmppd import precis
from xmppd.errors import SaslError, XmppdError
from xmppd.stream.sasl import Challenge, Channel, Exchange, Identity, Step, Success, Tenure, prepare_identity

_DIGESTS = {
    "sha256": hashlib.sha256,
    "sha1": hashlib.sha1,
    "sha512": hashlib.sha512,
    "sha384": hashlib.sha384,
    "sha224": hashlib.sha224,
    "sha3_512": hashlib.sha3_512,
}

HASHES: Mapping[str, str] = {
    "sha256": "SCRAM-SHA-256",
    "sha1": "SCRAM-SHA-1",
    "sha512": "SCRAM-SHA-512",
    "sha384": "SCRAM-SHA-384",
    "sha224": "SCRAM-SHA-224",
    "sha3_512": "SCRAM-SHA3-512",
}
"""hashlib's name of a hash of which keys may be kept -> its mechanism (without -PLUS). PLAIN is compared with
the first of these that an account has: those in front take less time to derive (1.4, 2.1 and 3.4 ms).
"""

ALGORITHMS: Mapping[str, str] = {HASHES[name]: name for name in ("sha256", "sha1", "sha512")}
"""Mechanism of this server (without -PLUS) -> name of its hash."""

_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]+\Z")
_ESCAPE = re.compile(r"=(2C|3D)?")

MAX_PASSWORD_BYTES = 1023
"""Of a password that is not plain ASCII."""


class BadPassword(XmppdError, ValueError):
    """A password that the OpaqueString profile refuses (RFC 8265 4.2): empty, with control characters, or too
    long.
    """


class ScramKeys(NamedTuple):
    """What a server keeps of a password for one hash (RFC 5802 3); nobody can log in with it elsewhere."""

    salt: bytes
    iterations: int
    stored: bytes
    server: bytes


class Credentials(NamedTuple):
    """The keys of one account by hash name, and which account that is. A `decoy` stands for an unknown
    account and never matches. `missing` names hashes of which the account should have keys, too; `imported`
    keys are another server's, which may have prepared the password in its own way.
    """

    keys: Mapping[str, ScramKeys]
    disabled: bool = False
    decoy: bool = False
    tenure: Tenure | None = None
    missing: tuple[str, ...] = ()
    imported: bool = False


class CredentialSource(Protocol):
    """Where mechanisms find credentials; `account` is a bare JID."""

    def credentials(self, account: str) -> Credentials | Awaitable[Credentials | None] | None:
        """The credentials, at once when they are cached; None for an unknown account."""

    def decoy(self, account: str) -> Credentials:
        """What an unknown account shows instead: always the same for a name, in the shape of real ones."""

    def salted_password(
        self, algorithm: str, password: str, salt: bytes, iterations: int
    ) -> Awaitable[bytes]:
        """`Hi()` of RFC 5802 2.2, computed off the loop."""

    def complete(self, account: str, password: str, found: Credentials) -> None:
        """Make what is `missing` some time soon: this password, in this form, fits the keys it has."""


def prepare_password(password: str) -> str:
    """The password as it is hashed (RFC 8265 4.2); BadPassword when it cannot be one."""
    if password.isascii() and password.isprintable() and password:
        return password
    try:
        return precis.opaque(password, MAX_PASSWORD_BYTES)
    except precis.PrecisError as error:
        raise BadPassword(f"the password is not usable: {error}") from None


def derive_keys(algorithm: str, password: str, salt: bytes, iterations: int) -> ScramKeys:
    """The keys of a prepared password (RFC 5802 3). Costs milliseconds: not for the loop."""
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt, iterations)
    return ScramKeys(
        salt, iterations, stored_key(algorithm, salted), hmac.digest(salted, b"Server Key", algorithm)
    )


def stored_key(algorithm: str, salted: bytes) -> bytes:
    """StoredKey of a salted password (RFC 5802 3)."""
    return _DIGESTS[algorithm](hmac.digest(salted, b"Client Key", algorithm)).digest()


def make_nonce() -> str:
    """144 random bits as the server's part of the nonce."""
    return next(_nonces)


def _make_nonces() -> Iterator[str]:
    """The kernel is asked for many at once."""
    while True:
        many = _base64(os.urandom(18 * 128))
        for at in range(0, len(many), 24):
            yield many[at : at + 24]


_nonces = _make_nonces()


def scram_mechanisms(source: CredentialSource, *, nonce: Callable[[], str] = make_nonce) -> tuple[Scram, ...]:
    """The six mechanisms; those with channel binding come first."""
    return (
        Scram("SCRAM-SHA-512-PLUS", 450, source, nonce),
        Scram("SCRAM-SHA-256-PLUS", 400, source, nonce),
        Scram("SCRAM-SHA-1-PLUS", 300, source, nonce),
        Scram("SCRAM-SHA-512", 250, source, nonce),
        Scram("SCRAM-SHA-256", 200, source, nonce),
        Scram("SCRAM-SHA-1", 100, source, nonce),
    )


class Scram:
    """One SCRAM mechanism; a name in -PLUS asks for channel binding, and so for TLS."""

    needs_tls = False

    def __init__(self, name: str, priority: int, source: CredentialSource, nonce: Callable[[], str]) -> None:
        self.name = name
        self.priority = priority
        self.plus = name.endswith("-PLUS")
        self.algorithm = ALGORITHMS[name.removesuffix("-PLUS")]
        self.source = source
        self.nonce = nonce

    def available(self, channel: Channel) -> bool:
        """With -PLUS, whether there is something to bind to."""
        return bool(channel.bindings) or not self.plus

    def start(self, channel: Channel) -> Exchange:
        """A fresh exchange."""
        return _ScramExchange(self, channel)


class _ClientFirst(NamedTuple):
    """The client's first message, and the `c=` that its final one must hold."""

    bare: str
    name: str
    authzid: str
    nonce: str
    binding: str


class _ScramExchange:
    __slots__ = (
        "_channel",
        "_client_first",
        "_credentials",
        "_local",
        "_scram",
        "_server_first",
        "account",
        "lacking",
    )

    def __init__(self, scram: Scram, channel: Channel) -> None:
        self._scram = scram
        self._channel = channel
        self._server_first = ""
        self.account = ""
        self.lacking = False

    def step(self, data: bytes) -> Step | Awaitable[Step]:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise SaslError("malformed-request") from None
        return self._prove(text) if self._server_first else self._greet(text)

    def _greet(self, text: str) -> Step | Awaitable[Step]:
        first = self._client_first = _parse_first(text, self._channel, plus=self._scram.plus)
        jid = prepare_identity(first.name, first.authzid, self._channel)
        self._local = jid.local
        account = self.account = jid.bare
        found = self._scram.source.credentials(account)
        if found is None or isinstance(found, Credentials):
            return self._challenge(found, account)
        return self._wait(found, account)

    async def _wait(self, pending: Awaitable[Credentials | None], account: str) -> Step:
        return self._challenge(await pending, account)

    def _challenge(self, found: Credentials | None, account: str) -> Challenge:
        scram = self._scram
        # An account without keys of this hash looks like an unknown one too.
        if found is None or scram.algorithm not in found.keys:
            self.lacking = found is not None
            found = scram.source.decoy(account)
        self._credentials = found
        keys = found.keys[scram.algorithm]
        salt = _base64(keys.salt)
        channel = self._channel
        advertised = protection(scram.algorithm, channel.offered, channel.advertised)
        self._server_first = (
            f"r={self._client_first.nonce}{scram.nonce()},s={salt},i={keys.iterations}{advertised}"
        )
        return Challenge(self._server_first.encode())

    def _prove(self, text: str) -> Success:
        """The client's final message (RFC 5802 3 and 7)."""
        scram = self._scram
        signed, proof_given, proof_text = text.rpartition(",p=")
        binding, _, rest = signed.partition(",")
        nonce, *extensions = rest.split(",")
        if not proof_given or not binding.startswith("c=") or not nonce.startswith("r="):
            raise SaslError("malformed-request")
        _check_extensions(extensions)
        keys = self._credentials.keys[scram.algorithm]
        message = f"{self._client_first.bare},{self._server_first},{signed}".encode()
        same = _equal(binding, self._client_first.binding)
        same &= _equal(nonce, self._server_first.partition(",")[0])
        same &= _proof_matches(scram.algorithm, keys.stored, message, proof_text)
        if not same or self._credentials.decoy:
            raise SaslError("not-authorized")
        if self._credentials.disabled:
            raise SaslError("account-disabled")
        signature = hmac.digest(keys.server, message, scram.algorithm)
        identity = Identity(self._local, shown=self._credentials)
        return Success(identity, b"v=" + binascii.b2a_base64(signature, newline=False))


@lru_cache(maxsize=64)
def protection(algorithm: str, mechanisms: tuple[str, ...], types: tuple[str, ...]) -> str:
    """The attribute that tells what was advertised, mechanisms and types of channel binding, to a client from
    which somebody in between may have kept some of it (XEP-0474 5.1); "" where nothing was.
    """
    if not mechanisms:
        return ""
    text = "\x1e".join(sorted(mechanisms))
    if types:
        text += "\x1f" + "\x1e".join(sorted(types))
    return ",h=" + _base64(_DIGESTS[algorithm](text.encode()).digest())


def _parse_first(text: str, channel: Channel, *, plus: bool) -> _ClientFirst:
    """Take the client's first message apart (RFC 5802 7)."""
    parts = text.split(",")
    if len(parts) < 4:
        raise SaslError("malformed-request")
    flag, authzid, name, nonce, *extensions = parts
    bound = _bound_data(flag, channel, plus=plus)
    if name.startswith("m="):
        # RFC 5802 5.1: an unsupported mandatory extension must fail the authentication.
        raise SaslError("not-authorized", "mandatory extensions are not supported")
    if not name.startswith("n=") or not nonce.startswith("r=") or not _NONCE.match(nonce, 2):
        raise SaslError("malformed-request")
    if authzid and not authzid.startswith("a="):
        raise SaslError("malformed-request")
    _check_extensions(extensions)
    header = f"{flag},{authzid},"
    return _ClientFirst(
        bare=text[len(header) :],
        name=_unescape(name[2:]),
        authzid=_unescape(authzid[2:]),
        nonce=nonce[2:],
        binding="c=" + _base64(header.encode() + bound),
    )


def _bound_data(flag: str, channel: Channel, *, plus: bool) -> bytes:
    """The channel binding data that the gs2 flag asks for (RFC 5802 6), kept from now on."""
    if flag.startswith("p="):
        data = channel.bindings.get(flag[2:])
        if not plus or data is None:
            raise SaslError("not-authorized", "this channel binding is not supported here")
        return data
    if flag not in ("n", "y"):
        raise SaslError("malformed-request")
    if plus:
        raise SaslError("not-authorized", "the mechanism needs channel binding")
    if flag == "y" and any(name.endswith("-PLUS") for name in channel.offered):
        # The client believes that no -PLUS was offered: somebody in between took it off the list.
        raise SaslError("not-authorized", "channel binding was offered")
    return b""


def _check_extensions(extensions: list[str]) -> None:
    """Unknown optional extensions are ignored; they must have the form of an attribute (RFC 5802 5.1)."""
    for extension in extensions:
        if (
            len(extension) < 3
            or not (extension[0].isascii() and extension[0].isalpha())
            or extension[1] != "="
        ):
            raise SaslError("malformed-request")
        if extension[0] == "m":
            raise SaslError("not-authorized", "mandatory extensions are not supported")


def _unescape(saslname: str) -> str:
    """A saslname without its escapes (RFC 5802 5.1)."""
    if "=" not in saslname:
        return saslname

    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            raise SaslError("malformed-request")
        return "," if match[1] == "2C" else "="

    return _ESCAPE.sub(replace, saslname)


def _proof_matches(algorithm: str, stored: bytes, message: bytes, proof_text: str) -> bool:
    """Whether the proof was made with the client key behind `stored` (RFC 5802 3)."""
    signature = hmac.digest(stored, message, algorithm)
    try:
        proof = binascii.a2b_base64(proof_text, strict_mode=True)
    except ValueError:
        return False
    if len(proof) != len(signature):
        return False
    key = (int.from_bytes(proof) ^ int.from_bytes(signature)).to_bytes(len(signature))
    return hmac.compare_digest(_DIGESTS[algorithm](key).digest(), stored)


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
