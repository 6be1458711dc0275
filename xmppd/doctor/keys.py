"""Whether the keys of issuers of tokens can be fetched."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Iterable
from typing import Any

from xmppd.config import Config
from xmppd.doctor.advice import Advice
from xmppd.errors import ConfigError
from xmppd.parts.http import HttpFailed
from xmppd.rules import issuers

ALGORITHMS = "name algorithms by which one of them is used"


async def look(config: Config) -> list[Advice]:
    """One line for each issuer that has a server of keys."""
    try:
        found = issuers(config)
    except ConfigError as error:
        return [Advice("error", "http.issuers", str(error), "mend it, and reload")]
    return list(await asyncio.gather(*map(_asked, (it for it in found if it.url))))


async def _asked(issuer: Any) -> Advice:
    about = f"keys of {issuer.name}"
    keys = importlib.import_module("xmppd.access.jwts").key_set_of(issuer, time.time, time.monotonic)
    begun = time.monotonic()
    try:
        count = await keys.look()
    except (HttpFailed, ValueError, RecursionError) as error:
        do = "mend that server, jwks_uri, or allowed; keys in key_files need no server"
        return Advice("error", about, f"they cannot be fetched: {error}", do)
    finally:
        await keys.close()
    if not count:
        return Advice("error", about, "there is none for " + _names(issuer.algorithms), ALGORITHMS)
    return Advice("ok", about, f"{count} fetched in {(time.monotonic() - begun) * 1000:.0f} ms")


def _names(algorithms: Iterable[str]) -> str:
    return ", ".join(algorithms)
