"""Keys by which tokens that others sign are checked: what plugins know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from xmppd.errors import XmppdError


class TokenRefused(XmppdError):
    """A token is none that is taken: the sentence says why, for the log and not for who showed it."""


class KeysUnavailable(XmppdError):
    """The keys of an issuer cannot be had now: nobody knows whether a token is right."""


class KeySet(Protocol):
    """Keys of one issuer of tokens (JWT, RFC 7519): see `Server.key_set`."""

    async def claims(
        self, token: str, *, issuer: str, audience: str, leeway: float = 30.0
    ) -> Mapping[str, Any]:
        """What a token of this issuer says that is for this audience, holds now (by clocks that differ by
        `leeway` seconds at most) and is signed by one of the keys; TokenRefused, KeysUnavailable. `iss`,
        `aud`, `exp` and `sub` are there, `exp` is a number.
        """

    @property
    def version(self) -> int:
        """Another number when there are other keys: what was found good is to be checked again."""

    def is_current(self, version: int) -> bool:
        """Whether there are no others, as far as that needs not be asked for now."""

    async def close(self) -> None:
        """Ask for nothing more."""
