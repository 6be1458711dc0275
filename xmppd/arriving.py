"""Files of accounts that arrive, as one process hands them to another: JSON Lines of `Arrival`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from xmppd.core.arrival import Arrival
from xmppd.errors import CommandError

LARGE = 65_536
"""Bytes of a line that is parsed by a thread."""


async def arrivals_in(file: Path) -> AsyncIterator[Arrival]:
    """The accounts of a file; CommandError for one that is none of ours."""
    loop = asyncio.get_running_loop()
    try:
        with file.open("rb") as lines:
            for line in lines:
                row = loaded(line) if len(line) < LARGE else await loop.run_in_executor(None, loaded, line)
                yield arrival_of(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{file} is no file of accounts that arrive: {error!r}") from None


def loaded(line: bytes) -> Any:
    """A line that `line_of` wrote, as JSON; ValueError."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:  # half a surrogate pair, in a password perhaps
        return json.loads(line)


def arrival_of(row: Mapping[str, Any]) -> Arrival:
    """An account as `line_of` wrote it."""
    return Arrival(
        row["account"], row["credentials"], row["disabled"], row["created"], row["parts"], row["hashes"]
    )


def line_of(arrival: Arrival) -> bytes:
    """An account as a line of JSON without its end; a part may be JSON already (`Raw`)."""
    row = {
        "account": arrival.account,
        "credentials": arrival.credentials,
        "disabled": arrival.disabled,
        "created": arrival.created,
        "parts": arrival.parts,
        "hashes": arrival.hashes,
    }
    try:
        return msgspec.json.encode(row)
    except UnicodeEncodeError:  # half a surrogate pair, in a password perhaps
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=_loaded)
        return text.encode("utf-8", "backslashreplace")


def _loaded(raw: Any) -> Any:
    return json.loads(bytes(raw))
