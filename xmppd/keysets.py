"""Keys by which tokens of an issuer (JWT, RFC 7519) are checked: some that are known, and those of its JSON
Web Key Set (RFC 7517 5), which is fetched, kept, and fetched again. Loaded where there are any.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.exceptions import PyJWTError

from xmppd.parts.http import HttpAnswer, HttpClient, HttpFailed
from xmppd.parts.keysets import KeysUnavailable, TokenRefused

log = logging.getLogger(__name__)

SECRET_BYTES: Final = 32
"""What a key of HMAC has at least (RFC 7518 3.2)."""
RSA_BITS: Final = (2048, 8192)
"""What a key of RSA has at least (RFC 7518 3.3), and at most: checking by larger ones takes long."""
RSA_EXPONENT_BITS: Final = 33
MOST_BYTES: Final = 262_144
"""Of an answer."""
MOST_KEYS: Final = 64
"""In one set."""
MOST_TRIED: Final = 8
"""Keys that may be meant by one token."""
MOST_TOKEN: Final = 16_384
"""Characters of a token."""
LATEST: Final = 2**53
"""No moment is later, in seconds since the epoch."""
MOST_NAME: Final = 256
"""Characters of the name of a key."""
LEAST_SECONDS, USUAL_SECONDS, MOST_SECONDS = 60.0, 600.0, 3600.0
"""How long keys that were fetched are taken without asking again: as the answer says, within bounds."""
EARLY: Final = 0.8
"""At which part of that they are asked for in the background."""
AGAIN_SECONDS: Final = 10.0
"""How often a token whose key is not known makes it ask at most."""
PAUSE_SECONDS, MOST_PAUSE = 1.0, 30.0
"""How long it waits after it was not answered: then twice as long, up to a bound."""
REQUIRED: Final = ("exp", "aud", "iss", "sub")
KINDS: Final = {"HS": "oct", "RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""The type of a JWK by how an algorithm's name begins."""
WRONG: Final = (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError)
"""What the library raises for keys that are none."""
AGE: Final = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?(\d{1,9})(?!\d)', re.IGNORECASE)
FORBIDS: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,;=])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Key:
    """A key in the form in which each algorithm takes it; by `name` ("": it has none) tokens say which."""

    name: str
    forms: Mapping[str, Any]


def keys_of(text: str, algorithms: Sequence[str]) -> list[Key]:
    """The keys in a text: PEM, a secret, a JWK or a JWK Set; none where it holds no key for any of these."""
    text = text.strip()
    if text.startswith("{"):
        try:
            return keys_in(json.loads(text), algorithms)
        except (ValueError, RecursionError):
            return []
    forms = {name: form for name in algorithms if (form := _of_text(name, text)) is not None}
    return [Key("", forms)] if forms else []


def keys_in(data: Any, algorithms: Sequence[str]) -> list[Key]:
    """The keys of a JWK Set, or of a JWK, that are for one of these algorithms; ValueError for what is
    neither.
    """
    if isinstance(data, dict) and "kty" in data:
        data = {"keys": [data]}
    found = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(found, list):
        raise ValueError("it is no set of keys")
    if len(found) > MOST_KEYS:
        raise ValueError(f"it has more than {MOST_KEYS} keys")
    return [key for one in found if (key := _of_jwk(one, algorithms)) is not None]


def _of_text(algorithm: str, text: str) -> Any | None:
    """A key as an algorithm takes it; None when it does not, or is a private one, or too short."""
    if algorithm.startswith("HS"):
        if "-----BEGIN" in text or text.startswith(("ssh-", "ecdsa-")) or len(text.encode()) < SECRET_BYTES:
            return None
        return text.encode()
    if "PRIVATE KEY" in text:
        return None
    try:
        key = jwt.get_algorithm_by_name(algorithm).prepare_key(text)
    except WRONG:
        return None
    return key if _is_fit(key) else None


def _of_jwk(jwk: Any, algorithms: Sequence[str]) -> Key | None:
    """RFC 7517 4; one for something else, or a private one, is none."""
    if not isinstance(jwk, dict) or "d" in jwk or jwk.get("use", "sig") != "sig":
        return None
    uses, name = jwk.get("key_ops", ["verify"]), jwk.get("kid", "")
    if not isinstance(uses, list) or "verify" not in uses:
        return None
    if not isinstance(name, str) or len(name) > MOST_NAME:
        return None
    wanted = [it for it in algorithms if jwk.get("alg", it) == it and jwk.get("kty") == KINDS[it[:2]]]
    forms = {it: form for it in wanted if (form := _of_parameters(it, jwk)) is not None}
    return Key(name, forms) if forms else None


def _of_parameters(algorithm: str, jwk: Mapping[str, Any]) -> Any | None:
    if any(isinstance(jwk.get(name), str) and len(jwk[name]) > 2_000 for name in ("n", "e", "x", "y")):
        return None
    try:
        signs = jwt.get_algorithm_by_name(algorithm)
        key = signs.prepare_key(signs.from_jwk(dict(jwk)))
    except WRONG:
        return None
    if isinstance(key, bytes):
        return key if len(key) >= SECRET_BYTES else None
    return key if _is_fit(key) else None


def _is_fit(key: Any) -> bool:
    """Whether one of RSA is neither too short nor so large that it takes long."""
    if not isinstance(key, RSAPublicKey):
        return True
    least, most = RSA_BITS
    return least <= key.key_size <= most and key.public_numbers().e.bit_length() <= RSA_EXPONENT_BITS


def key_set(
    algorithms: Sequence[str],
    keys: Iterable[str],
    url: str,
    allowed: Sequence[str],
    seconds: float,
    ca_file: str,
    now: Callable[[], float],
    clock: Callable[[], float],
) -> Keys:
    """Some keys, of which those at a `url` are asked for by a client of their own; ValueError where there can
    be none. What is behind that client is loaded where it is needed.
    """
    if not url:
        return Keys(algorithms, keys, "", None, now, clock)
    make = importlib.import_module("xmppd.net.http.client").Client
    return Keys(algorithms, keys, url, make(allowed, seconds, MOST_BYTES, ca_file), now, clock)


class Keys:
    """See `xmppd.parts.keysets.KeySet`. With a `url` its keys are taken as well, and kept while it cannot be
    asked, however long that is. `now`: seconds since the epoch; `clock`: seconds that only rise.
    """

    def __init__(
        self,
        algorithms: Sequence[str],
        texts: Iterable[str],
        url: str,
        client: HttpClient | None,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._algorithms = tuple(algorithms)
        self._known = known(texts, algorithms)
        self._url = url
        self._client = client
        if client is not None:
            client.check(url)
        elif not self._known:
            raise ValueError("names no keys")
        if client is not None and all(name.startswith("HS") for name in algorithms):
            raise ValueError("what is signed by a secret is checked by no keys that others may fetch")
        self._now = now
        self._clock = clock
        self._fetched: list[Key] | None = None
        self._print = ""
        self._version = 0
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = -math.inf
        self._due = -math.inf
        self._old_at = -math.inf
        self._pause = 0.0
        self._is_closed = False

    @property
    def version(self) -> int:
        """See `KeySet`."""
        return self._version

    def is_current(self, version: int) -> bool:
        """See `KeySet`."""
        return version == self._version and (self._client is None or self._clock() < self._due)

    async def close(self) -> None:
        """See `KeySet`."""
        self._is_closed = True
        if self._asking is not None:
            self._asking.cancel()
        if self._client is not None:
            await self._client.close()

    async def claims(
        self, token: str, *, issuer: str, audience: str, leeway: float = 30.0
    ) -> Mapping[str, Any]:
        """See `KeySet`."""
        header, said = _unproved(token)
        algorithm, name = header.get("alg"), header.get("kid", "")
        if "crit" in header or not isinstance(name, str) or algorithm not in self._algorithms:
            raise TokenRefused("it is signed in a way that is not taken")
        if said.get("iss") != issuer:
            raise TokenRefused("it is of another issuer")
        self._check_moments(said, leeway)
        await self._refreshed()
        while True:
            version = self._version
            for key in self._meant(algorithm, name):
                if (found := _proved(token, key, algorithm, issuer, audience)) is not None:
                    return found
            if (name and self._has(name)) or not await self._asked_again(version):
                break
        if self._client is not None and self._fetched is None:
            raise KeysUnavailable(f"the keys of {issuer} cannot be had now")
        raise TokenRefused("it is signed by no key that is known, or not for this audience")

    def _check_moments(self, said: Mapping[str, Any], leeway: float) -> None:
        now = self._now()
        end, begin = _moment(said.get("exp")), _moment(said.get("nbf", 0))
        if end is None or begin is None:
            raise TokenRefused("it does not say when it holds")
        if now >= end + leeway or now < begin - leeway:
            raise TokenRefused("it does not hold now")

    # which keys

    def _meant(self, algorithm: str, name: str) -> list[Any]:
        """By the name that a token says, else by all, as far as they are for the algorithm. A key without a
        name may be meant by any."""
        every = (*self._known, *(self._fetched or ()))
        chosen = [key for key in every if name and key.name == name]
        chosen = chosen or [key for key in every if not name or not key.name]
        found = [key.forms[algorithm] for key in chosen if algorithm in key.forms]
        if len(found) > MOST_TRIED:
            raise TokenRefused("it does not say by which of many keys it is signed")
        return found

    def _has(self, name: str) -> bool:
        return any(key.name == name for key in (*self._known, *(self._fetched or ())))

    # fetching

    async def _refreshed(self) -> None:
        """Have keys that are not too old, or are all that can be had. Nobody waits for a server that did not
        answer the last time."""
        if self._client is None:
            return
        now = self._clock()
        if now >= self._due and self._asking is None:
            self._ask()
        if self._asking is not None and (self._fetched is None or (now >= self._old_at and not self._pause)):
            await asyncio.wait({self._asking})

    async def _asked_again(self, version: int) -> bool:
        """Whether there are others than those of a version, after it was asked for them once more, which is
        done every AGAIN_SECONDS at most."""
        if self._client is None:
            return False
        if self._version == version and self._asking is None:
            if self._clock() - self._asked_at < AGAIN_SECONDS:
                return False
            self._ask()
        if self._asking is not None:
            await asyncio.wait({self._asking})
        return self._version != version

    def _ask(self) -> None:
        if self._is_closed:
            return
        self._asked_at = self._clock()
        self._asking = asyncio.get_running_loop().create_task(self._fetch())

    async def look(self) -> int:
        """How many keys there are at the url now, which changes nothing; HttpFailed, ValueError."""
        answer = await self._get()
        return len(_answered(answer, self._algorithms)[0])

    async def _get(self) -> HttpAnswer:
        assert self._client is not None
        return await self._client.get(self._url, {"Accept": "application/jwk-set+json, application/json"})

    async def _fetch(self) -> None:
        try:
            try:
                answer = await self._get()
                keys, text = _answered(answer, self._algorithms)
            except (HttpFailed, ValueError, RecursionError) as error:
                self._failed(str(error))
            else:
                self._succeeded(keys, text, lasting(answer.headers))
        finally:
            self._asking = None

    def _failed(self, why: str) -> None:
        if not self._pause:
            kept = None if self._fetched is None else len(self._fetched)
            log.warning("keys-not-fetched", extra={"host": self._host, "error": why, "kept": kept})
        self._pause = min(max(PAUSE_SECONDS, self._pause * 2), MOST_PAUSE)
        self._due = self._clock() + self._pause

    def _succeeded(self, keys: list[Key], text: str, seconds: float) -> None:
        if self._pause or not keys or text != self._print:
            level = logging.INFO if keys else logging.WARNING
            log.log(level, "keys-fetched", extra={"host": self._host, "keys": len(keys)})
        if text != self._print or self._fetched is None:
            self._fetched, self._print = keys, text
            self._version += 1
        self._pause = 0.0
        self._due = self._clock() + seconds * EARLY
        self._old_at = self._clock() + seconds

    @property
    def _host(self) -> str:
        return urlsplit(self._url).hostname or ""


def known(texts: Iterable[str], algorithms: Sequence[str]) -> list[Key]:
    """The keys in all of these texts; ValueError for one without any."""
    found: list[Key] = []
    for number, text in enumerate(texts, 1):
        keys = keys_of(text, algorithms)
        if not keys:
            raise ValueError(f"key {number} is none for {', '.join(algorithms)}")
        found += keys
    return found


def _answered(answer: HttpAnswer, algorithms: Sequence[str]) -> tuple[list[Key], str]:
    """The keys of a set, and a text by which another set is known; ValueError. Secrets are none: whoever can
    ask has them, too."""
    if answer.status != 200:
        raise ValueError(f"it answered {answer.status}")
    data = json.loads(answer.body)
    if not isinstance(data, dict) or "keys" not in data:
        raise ValueError("it is no set of keys")
    found = keys_in(data, [name for name in algorithms if not name.startswith("HS")])
    return found, json.dumps(data["keys"], sort_keys=True)


def lasting(headers: Mapping[str, str]) -> float:
    """For how many seconds an answer may be kept (RFC 9111 5.2.2), within bounds."""
    control = headers.get("cache-control", "")
    if FORBIDS.search(control):
        return LEAST_SECONDS
    found, age = AGE.search(control), headers.get("age", "0").strip()
    seconds = USUAL_SECONDS if found is None else float(found[1])
    if age.isascii() and age.isdigit():
        seconds -= float(age[:9])
    return min(max(seconds, LEAST_SECONDS), MOST_SECONDS)


def _unproved(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a token says of itself, whoever made it; TokenRefused."""
    if len(token) > MOST_TOKEN:
        raise TokenRefused("it is too long")
    try:
        found = jwt.decode_complete(token, options={"verify_signature": False})
    except (*WRONG, RecursionError):
        raise TokenRefused("it is no token") from None
    return found["header"], found["payload"]


def _proved(token: str, key: Any, algorithm: str, issuer: str, audience: str) -> Mapping[str, Any] | None:
    """What a token says, if this key signed it for this audience. Its moments were looked at by our clock."""
    moments = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    options: Any = {"require": [*REQUIRED], **moments}
    try:
        found: Mapping[str, Any] = jwt.decode(
            token, key, algorithms=[algorithm], audience=audience, issuer=issuer, options=options
        )
    except (*WRONG, RecursionError):
        return None
    return found


def _moment(value: Any) -> float | None:
    """Seconds since the epoch (NumericDate); None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LATEST else None
