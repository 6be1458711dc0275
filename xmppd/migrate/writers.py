"""Formats that are written: each makes a writer of a path, a dialect ("" the usual one) and `Losses`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from xmppd.migrate.formats.jsonl import JsonLinesWriter
from xmppd.migrate.record import Losses
from xmppd.migrate.target import Writer

Make = Callable[[Path, str, Losses], Writer]


def _jsonl(path: Path, dialect: str, losses: Losses) -> Writer:
    return JsonLinesWriter(path)


WRITERS: Final[Mapping[str, Make]] = MappingProxyType({"jsonl": _jsonl})
