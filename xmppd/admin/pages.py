"""Long commands in short calls: each returns one page, and the command line joins them and shows progress.

So a run over all accounts works through the socket like any other command, one call at a time, and what was
done is done when it is interrupted.
"""

from __future__ import annotations

import base64
import binascii
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from xmppd.admin.commands import USAGE
from xmppd.admin.progress import ProgressBar
from xmppd.admin.render import render, table
from xmppd.errors import CommandError


def text_of(token: bytes | None) -> str | None:
    """A store's token as the text that goes into `after`."""
    return None if token is None else base64.urlsafe_b64encode(token).decode()


def token_of(after: str) -> bytes | None:
    """The way back; "" is no token. CommandError."""
    try:
        return base64.b64decode(after, altchars=b"-_", validate=True) if after else None
    except (binascii.Error, ValueError):
        raise CommandError("after: this is not a token", USAGE) from None


class Pages:
    """The pages of a command as they come in. If there are several, `out` shows how far it is, and that it is
    `doing` this.
    """

    def __init__(
        self,
        doing: str,
        out: TextIO = sys.stderr,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._doing = doing
        self._out = out
        self._clock = clock
        self._bar: ProgressBar | None = None
        self._rows: list[Any] = []
        self._counts: dict[str, int] = {}
        self.after: str | None = None
        self.exit_code = 0

    def add(self, page: Mapping[str, Any]) -> bool:
        """Take over one page; whether there are more."""
        self._rows += page["rows"]
        for name, count in page["counts"].items():
            self._counts[name] = self._counts.get(name, 0) + count
        self.after = page["after"]
        self.exit_code = max(self.exit_code, page["exit_code"])
        unit, done = next(iter(page["counts"].items()))
        if self._bar is not None:
            self._bar.advance(done)
            if self.after is None:
                self._bar.end()
        elif self.after is not None:
            self._bar = ProgressBar(self._out, unit=unit, clock=self._clock)
            self._bar.begin(self._doing, page["total"])
            self._bar.advance(done)
        return self.after is not None

    def interrupted(self) -> None:
        """Say how to go on."""
        if self._bar is not None:
            self._bar.end()
        if self.after is not None:
            self._out.write(f"xmppd: interrupted; go on with --after {self.after}\n")

    @property
    def result(self) -> dict[str, Any]:
        """Everything together, for programs."""
        return {"rows": self._rows, **self._counts}

    @property
    def text(self) -> str:
        """Everything together, for people."""
        counts = render(self._counts)
        return f"{table(self._rows)}\n\n{counts}" if self._rows else counts
