"""A client of SASL for tests, by the letter of RFC 5802 and 4616, and what its exchanges come to."""

import base64
import hashlib
import hmac
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from xmppd.errors import SaslError
from xmppd.stream.sasl import Authenticator, Challenge, Step, Success

PASSWORD = "pencil"
HASHES = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
"""Mechanism -> its hash."""


async def finish(step: Step | Awaitable[Step]) -> Step:
    return await step if inspect.isawaitable(step) else step


async def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """Condition and text with which an exchange ends."""
    with pytest.raises(SaslError) as caught:
        await finish(call())
    return caught.value.condition, caught.value.text


def b64(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def plain(name: str, password: str, authzid: str = "") -> str:
    return b64(f"{authzid}\0{name}\0{password}")


@dataclass
class ScramClient:
    """A client by the letter of RFC 5802, whose messages can be bent."""

    name: str = "alice"
    password: str = PASSWORD
    gs2: str = "n,,"
    bound: bytes = b""
    before: str = ""
    after: str = ""
    nonce: str = "fyko+d2lbbFgONRv9qkxdawL"
    bend_nonce: Callable[[str], str] = lambda nonce: nonce
    bend_proof: Callable[[bytes], bytes] = lambda proof: proof
    bend_binding: Callable[[bytes], bytes] = lambda binding: binding
    final_after: str = ""
    challenge: dict[str, str] = field(default_factory=dict)

    async def login(self, auth: Authenticator, mechanism: str) -> Success:
        escaped = self.name.replace("=", "=3D").replace(",", "=2C")
        bare = f"{self.before}n={escaped},r={self.nonce}{self.after}"
        first = await finish(auth.start(mechanism, b64(self.gs2 + bare)))
        assert isinstance(first, Challenge)
        server_first = first.data.decode()
        self.challenge = dict(part.split("=", 1) for part in server_first.split(","))
        algorithm = HASHES[mechanism.removesuffix("-PLUS")]
        salted = hashlib.pbkdf2_hmac(
            algorithm,
            self.password.encode(),
            base64.b64decode(self.challenge["s"]),
            int(self.challenge["i"]),
        )
        binding = b64(self.bend_binding(self.gs2.encode() + self.bound))
        unsigned = f"c={binding},r={self.bend_nonce(self.challenge['r'])}{self.final_after}"
        message = f"{bare},{server_first},{unsigned}".encode()
        client_key = hmac.digest(salted, b"Client Key", algorithm)
        signature = hmac.digest(hashlib.new(algorithm, client_key).digest(), message, algorithm)
        proof = self.bend_proof(bytes(a ^ b for a, b in zip(client_key, signature, strict=True)))
        last = await finish(auth.respond(b64(f"{unsigned},p={b64(proof)}")))
        assert isinstance(last, Success)
        server_key = hmac.digest(salted, b"Server Key", algorithm)
        assert last.data == b"v=" + base64.b64encode(hmac.digest(server_key, message, algorithm))
        return last
