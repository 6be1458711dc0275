"""Formats that are written: each makes a writer of a path, a dialect ("" the usual one) and `Losses`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from xmppd.migrate.formats import csvfile, jsonl
from xmppd.migrate.pie import write as pie_write
from xmppd.migrate.record import Losses
from xmppd.migrate.source import SourceError
from xmppd.migrate.target import Writer

Make = Callable[[Path, str, Losses], Writer]


def _jsonl(path: Path, dialect: str, losses: Losses) -> Writer:
    if dialect:
        raise SourceError("JSON Lines have no dialects")
    return jsonl.JsonLinesWriter(path)


def _csv(path: Path, dialect: str, losses: Losses) -> Writer:
    if dialect:
        raise SourceError("CSV has no dialects")
    return csvfile.CsvWriter(path, losses)


def _pie(path: Path, dialect: str, losses: Losses) -> Writer:
    if dialect not in ("", *pie_write.DIALECTS):
        raise SourceError(f"the dialects of XEP-0227 are {', '.join(pie_write.DIALECTS)}, not {dialect}")
    return pie_write.writer_of(path, dialect or pie_write.DIALECTS[0], losses)


WRITERS: Final[Mapping[str, Make]] = MappingProxyType({"jsonl": _jsonl, "csv": _csv, "xep-0227": _pie})
