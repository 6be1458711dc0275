"""Levels of the log that hold for some modules and some minutes, and end by themselves."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from xmppd.errors import CommandError

MOST: Final = 32
"""Modules at once."""
PREFIXES: Final = ("xmppd.", "xmppd_plugins.", "plugins.")
"""What loggers of ours are called, and those of plugins: of libraries nobody knows what they would tell."""

log = logging.getLogger(__name__)


class Levels:
    """Those of this node. `now` gives seconds since the epoch."""

    def __init__(
        self, call_later: Callable[[float, Callable[[], None]], Any], now: Callable[[], float]
    ) -> None:
        self._call_later = call_later
        self._now = now
        self._set: dict[str, tuple[str, float, Any]] = {}

    def set(self, module: str, level: str, minutes: int) -> Sequence[Mapping[str, Any]]:
        """Have a module, and all below it, say more or less for so many minutes; CommandError."""
        name = logger_of(module)
        if name not in self._set and len(self._set) >= MOST:
            raise CommandError(f"{MOST} modules have a level of their own already", rule="too-many-levels")
        self._end(name)
        seconds = minutes * 60.0
        timer = self._call_later(seconds, lambda: self._ended(name))
        self._set[name] = level, self._now() + seconds, timer
        logging.getLogger(name).setLevel(level.upper())
        log.warning("log-level", extra={"logger": name, "wanted": level, "minutes": minutes})
        return [row for row in self.rows() if row["module"] == name]

    def reset(self, module: str) -> Sequence[Mapping[str, Any]]:
        """End that of a module, or with "" all; a row for each that was ended. CommandError."""
        names = [logger_of(module)] if module else [*self._set]
        ended = [name for name in names if name in self._set]
        for name in ended:
            self._ended(name)
        return [{"ended": name} for name in ended]

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """A row for each module that has one: `until` in seconds since the epoch."""
        return [
            {"module": name, "level": level, "until": until}
            for name, (level, until, _) in sorted(self._set.items())
        ]

    def close(self) -> None:
        """The server stops: nothing is left of them in this process."""
        for name in [*self._set]:
            self._end(name)

    def _ended(self, name: str) -> None:
        self._end(name)
        log.warning("log-level-ended", extra={"logger": name})

    def _end(self, name: str) -> None:
        before = self._set.pop(name, None)
        if before is not None:
            before[2].cancel()
            logging.getLogger(name).setLevel(logging.NOTSET)


def logger_of(module: str) -> str:
    """The name of a module's logger: `core.router` stands for `xmppd.core.router`, the name of a plugin for
    the plugin's; CommandError.
    """
    known = [name for name in logging.root.manager.loggerDict if f"{name}.".startswith(PREFIXES)]
    for name in (module, *(f"{prefix}{module}" for prefix in PREFIXES)):
        if name in known:
            return name
    close = difflib.get_close_matches(module, (name.partition(".")[2] for name in known), n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise CommandError(f"no module {module!r} writes to the log{hint}", field="module", rule="module-unknown")
