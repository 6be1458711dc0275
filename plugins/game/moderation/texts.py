"""What players are told, in their language as far as there are words of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from xmppd.plugin import utc_stamp

TEXTS: Final = {
    "en.mute": "You cannot chat until {until}. {reason}",
    "en.mute-forever": "You cannot chat any more. {reason}",
    "en.chat-limit": "You can write few messages until {until}. {reason}",
    "en.chat-limit-forever": "You can write few messages. {reason}",
    "en.ban": "You cannot play until {until}. {reason}",
    "en.ban-forever": "You cannot play any more. {reason}",
    "en.over": "You can chat again.",
    "en.refused": "This is not said here.",
    "en.wait": "Please wait {seconds} s.",
    "de.mute": "Du kannst bis {until} nicht chatten. {reason}",
    "de.mute-forever": "Du kannst nicht mehr chatten. {reason}",
    "de.chat-limit": "Du kannst bis {until} nur wenige Nachrichten schreiben. {reason}",
    "de.chat-limit-forever": "Du kannst nur wenige Nachrichten schreiben. {reason}",
    "de.ban": "Du kannst bis {until} nicht spielen. {reason}",
    "de.ban-forever": "Du kannst nicht mehr spielen. {reason}",
    "de.over": "Du kannst wieder chatten.",
    "de.refused": "Das sagt man hier nicht.",
    "de.wait": "Bitte warte {seconds} s.",
}
"""By language and occasion; those of the configuration come before."""

KEYS: Final = frozenset(key.partition(".")[2] for key in TEXTS)


class Texts:
    """Texts of ours, and those of the configuration. `language`: for who has none that there is."""

    def __init__(self, own: Mapping[str, str], language: str) -> None:
        self._texts = {**TEXTS, **own}
        self._language = language

    def say(self, key: str, lang: str | None, **values: object) -> str:
        """A text in this language, or the next best one."""
        wanted = (lang or "").lower()
        for tried in (wanted, wanted.partition("-")[0], self._language, "en"):
            if (text := self._texts.get(f"{tried}.{key}")) is not None:
                break
        else:
            text = ""
        return filled(text, values)


def filled(text: str, values: Mapping[str, object]) -> str:
    """With values in the place of their names; what else is in braces stays."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text.strip()


def moment(seconds: float) -> str:
    """For people, in UTC: the first whole minute at which it is over."""
    return f"{datetime.fromtimestamp(math.ceil(seconds / 60) * 60, UTC):%Y-%m-%d %H:%M} UTC"


def iso(seconds: float | None) -> str:
    """For programs (XEP-0082), in UTC; "" for none."""
    return "" if seconds is None else utc_stamp(seconds)
