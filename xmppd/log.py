"""Logs for people on a terminal and for machines otherwise, by way of the standard library.

The message is the name of an event, the rest are fields: `log.info("session-bound", extra={"jid": jid})`.
Never pass bodies or passwords. Names of fields used everywhere: stream, jid, node, ms.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from xmppd.settings import LogConfig
from xmppd.text import escape

log = logging.getLogger(__name__)

FIELD_CHARACTERS = 1_000
"""Longer values are cut."""

SELDOM = frozenset({"store-failed", "cache-failed", "error-ignored"})
"""Events of which each client's every stanza, or every second, may make one while something is wrong."""

SELDOM_SECONDS = 10.0
"""How long one line stands for all that would say the same."""

QUIET = {"cassandra": logging.ERROR}
"""Libraries that say too much, and from which level on they are heard.

The driver of Cassandra warns once a second for each node that is down, and repeats queries with what they are
about. Events of ours tell what matters.
"""

TOLD = (
    "Control connection failed to connect",
    "Error preparing query",
    "Failed to authenticate",
)
"""How lines of a driver begin that tell, with a traceback, of an error that it raises too and we tell."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_EVENT = re.compile(r"[a-z]{1,20}(?:-[a-z]{1,20}){0,5}")
_SECRET = re.compile(r"(?i)password|passwd|secret|token|body|credential")
_NEEDS_QUOTES = re.compile(r'[\s"=\\]|^$')
_COLOURS = {
    "DEBUG": "\x1b[2m",
    "INFO": "\x1b[32m",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "CRITICAL": "\x1b[31m",
}


def configure(config: LogConfig, stream: TextIO = sys.stderr, *, node: str = "") -> None:
    """Send everything logged to `stream`; calling it again replaces what the call before set up."""
    terminal = stream.isatty()
    as_text = config.format == "text" or (config.format == "auto" and terminal)
    handler = _Handler(stream)
    handler.addFilter(Seldom())
    handler.addFilter(_is_news)
    handler.setFormatter(TextFormatter(colours=terminal) if as_text else JsonFormatter(node))
    root = logging.getLogger()
    for former in [former for former in root.handlers if isinstance(former, _Handler)]:
        handler.counts += former.counts
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(config.level.upper())
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(logging.NOTSET if config.level == "debug" else level)
    logging.captureWarnings(True)


def tell_ignored(found: sys.UnraisableHookArgs) -> None:
    """For `sys.unraisablehook`: an error that Python can raise to nobody is a line, and no text on stderr."""
    error = found.exc_value
    if isinstance(error, UnicodeDecodeError) and isinstance(found.object, bytes):
        return  # a client's server name that is no ASCII; the handshake fails, and `tls-failed` tells
    log.error("error-ignored", exc_info=error, extra={"problem": found.err_msg})


def counted() -> Mapping[tuple[str, str], int]:
    """How many lines there were of each event of ours, by its level: from warnings on, written or not."""
    found: Counter[tuple[str, str]] = Counter()
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            found += handler.counts
    return found


class _Handler(logging.StreamHandler[TextIO]):
    """The handler that `configure` owns."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.counts: Counter[tuple[str, str]] = Counter()

    def handle(self, record: logging.LogRecord) -> bool:
        """Count and write a line."""
        if record.levelno >= logging.WARNING and record.name.partition(".")[0] == "xmppd":
            event = record.msg if type(record.msg) is str and _EVENT.fullmatch(record.msg) else "other"
            self.counts[event, record.levelname.lower()] += 1
        return bool(super().handle(record))


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.name.startswith("cassandra.") and str(record.msg).startswith(TOLD))


class Seldom(logging.Filter):
    """Lets one line of each of the `SELDOM` events pass in `SELDOM_SECONDS`; the next one tells in `left_out`
    how many did not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        event = record.msg
        if event not in SELDOM:
            return True
        now = self._clock()
        if event in self._last and now < self._last[event] + SELDOM_SECONDS:
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return False
        self._last[event] = now
        record.left_out = self._left_out.pop(event, None)
        return True


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What came as `extra`: text and numbers, cut to a bound; what is named like a secret is masked."""
    fields: dict[str, Any] = {}
    for name, value in record.__dict__.items():
        if name in _STANDARD or value is None:
            continue
        if _SECRET.search(name):
            fields[name] = "***"
        elif isinstance(value, bool | int | float):
            fields[name] = value
        else:
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            fields[name] = text if len(text) <= FIELD_CHARACTERS else f"{text[:FIELD_CHARACTERS]}..."
    if record.name.partition(".")[0] not in ("xmppd", "root"):
        fields.setdefault("logger", record.name)
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts (UTC), level, event, the fields, `exception`. Pure ASCII."""

    def __init__(self, node: str = "") -> None:
        super().__init__()
        self.node = node

    def format(self, record: logging.LogRecord) -> str:
        """The line for one record."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "ts": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if self.node:
            line["node"] = self.node
        line.update(
            (name, value) for name, value in fields_of(record).items() if name not in ("ts", "level", "event")
        )
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """One line for people: local time, level, event, fields; an exception follows indented."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self.colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """The text for one record, in several lines only for an exception."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname:<7}"
        if self.colours:
            level = f"{_COLOURS.get(record.levelname, '')}{level}\x1b[0m"
        text = f"{clock}.{int(record.msecs):03d} {level} {escape(record.getMessage())}"
        text += "".join(f" {escape(name)}={_quoted(str(value))}" for name, value in fields_of(record).items())
        if record.exc_info:
            text += "".join(
                f"\n    {escape(line)}" for line in self.formatException(record.exc_info).split("\n")
            )
        return text


def _quoted(value: str) -> str:
    """In quotes, in which a backslash stands before each quote and backslash, where it needs them."""
    if not _NEEDS_QUOTES.search(value):
        return escape(value)
    return '"' + escape(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'
