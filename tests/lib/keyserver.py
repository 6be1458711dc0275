"""A server of keys on loopback, which answers as a test says, and tokens that are signed by such keys."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, AUDIENCE = "https://id.example.org", "xmppd"
P256 = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
LOOPBACK = ["127.0.0.0/8"]


def public(key: Any) -> str:
    """As PEM."""
    text: str = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return text


def jwk(key: Any, algorithm: str = "ES256", name: str | None = None, **more: Any) -> dict[str, Any]:
    """As a JWK; what is None is left out."""
    signs = jwt.get_algorithm_by_name(algorithm)
    data = signs.to_jwk(key if isinstance(key, bytes) else key.public_key(), as_dict=True)
    found = {**data, "alg": algorithm, "use": "sig", "kid": name, **more}
    found.pop("key_ops", None) if "key_ops" not in more else None
    return {key: value for key, value in found.items() if value is not None}


def token(
    key: Any,
    end: float,
    algorithm: str = "ES256",
    name: str | None = None,
    headers: Any = None,
    **claims: Any,
) -> str:
    """One of the issuer, with what is needed and `claims`."""
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "game-7", "exp": end, "scope": "user:show", **claims}
    kept = {name: value for name, value in said.items() if value is not None}
    head = {**(headers or {}), **({"kid": name} if name is not None else {})}
    return jwt.encode(kept, key, algorithm=algorithm, headers=head)


class KeyServer:
    """Has a set of `keys`; `answer`, where there is one, is asked in its place. `asked` counts requests."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = [*keys]
        self.headers: dict[str, str] = {}
        self.answer: Callable[[], Awaitable[web.StreamResponse]] | None = None
        self.asked = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/keys", self._give)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where the set is."""
        return f"http://127.0.0.1:{self.port}/keys"

    async def _give(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.answer is not None:
            return await self.answer()
        return web.json_response({"keys": self.keys}, headers=self.headers)


def says(body: bytes, status: int = 200, **headers: str) -> Callable[[], Awaitable[web.StreamResponse]]:
    """An answer with this body."""

    async def answer() -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer


def hangs(stop: asyncio.Event) -> Callable[[], Awaitable[web.StreamResponse]]:
    """No answer before `stop` is set."""

    async def answer() -> web.StreamResponse:
        await stop.wait()
        return web.Response(text=json.dumps({"keys": []}))

    return answer
