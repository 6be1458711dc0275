"""What the configuration says of moderation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal

from xmppd import ns
from xmppd.plugin import (
    NonNegativeFloat,
    NonNegativeInt,
    PluginConfig,
    PositiveFloat,
    PositiveInt,
    SecretText,
    Section,
    at_least,
    at_most,
    matching,
)

from .folding import LEET
from .texts import KEYS

VCARD: Final = f"{{{ns.VCARD}}}vCard"
GAME: Final = "{urn:xmppd:rich-presence:0}game"
Action = Literal["pass", "flag", "mask", "shadow", "refuse"]


class Rate(Section):
    """`burst` at once and `per_second` from then on, of one account; of one address `share` times as much. 0
    a second: no limit.
    """

    burst: PositiveInt = 10
    per_second: NonNegativeFloat = 1.0
    share: Annotated[float, at_least(1)] = 10.0


class Rates(Section):
    """What clients do: messages, presence to all or to one, requests for a subscription, invites, other iqs,
    reports.
    """

    message: Rate = Rate(burst=30, per_second=3.0)
    presence: Rate = Rate(burst=30, per_second=1.0)
    request: Rate = Rate(burst=20, per_second=0.1)
    invite: Rate = Rate(burst=20, per_second=0.2)
    iq: Rate = Rate(burst=1000, per_second=50.0)
    report: Rate = Rate(burst=10, per_second=0.001, share=20.0)


class Verdict(Section):
    """A service that is asked about texts that nothing else refuses: by POST to `url` ("": none), which
    answers within `seconds`. `failing`: what is done about a text when it does not; `at_once`: so many texts
    are asked about at once, and of more nobody is asked; after `open_after` failures in a row nobody is asked
    for `pause` seconds.
    """

    url: str = ""
    token: SecretText = SecretText("")
    seconds: PositiveFloat = 0.5
    failing: Action = "pass"
    allowed: tuple[str, ...] = ()
    ca_file: str = ""
    at_once: PositiveInt = 100
    open_after: PositiveInt = 5
    pause: PositiveFloat = 10.0
    where: frozenset[str] = frozenset({"message", "name", "note", "status", "invite"})


def leet(table: Mapping[str, str]) -> Mapping[str, str]:
    """Signs and digits of ASCII that stand for one small letter each."""
    for sign, letter in table.items():
        if len(sign) != 1 or not sign.isascii() or not sign.isprintable() or sign.isalpha() or sign.isspace():
            raise ValueError(f"must have single signs or digits, not {sign!r}")
        if len(letter) != 1 or not ("a" <= letter <= "z"):
            raise ValueError(f"must have a small letter for {sign!r}, not {letter!r}")
    return table


def texts(table: Mapping[str, str]) -> Mapping[str, str]:
    """By LANGUAGE.OCCASION."""
    for key in table:
        if key.partition(".")[2] not in KEYS:
            raise ValueError(
                f"must have keys LANGUAGE.OCCASION, not {key!r}; occasions are {', '.join(sorted(KEYS))}"
            )
    return table


class ModerationConfig(PluginConfig):
    """`words` is a folder of lists, LANGUAGE.txt each, and `patterns` a file of regular expressions; what is
    not below an `[ACTION]` there is dealt with by `action`. With `by_language` a text is held against the
    lists of the language that it is said to be in, as far as there are any; otherwise against all. A text of
    more than `characters` is refused. Expressions may take `pattern_seconds` of the processor for one text;
    what takes longer is dealt with by `slow`. Children of presence in `muted_presence` (Clark names) are
    shown of who is muted, too. `spoken` are payloads of iq sets (Clark names) by which clients say something
    to others: their texts are judged, and who is muted sends none. `limited` is how often he writes who may
    write little.
    """

    words: Path | None = None
    patterns: Path | None = None
    action: Action = "mask"
    by_language: bool = False
    leet: Annotated[Mapping[str, str], leet] = MappingProxyType(LEET)
    characters: PositiveInt = 5_000
    pattern_seconds: PositiveFloat = 0.005
    slow: Action = "refuse"
    verdict: Verdict = Verdict()
    rates: Rates = Rates()
    limited: Rate = Rate(burst=3, per_second=0.05)
    muted_presence: frozenset[str] = frozenset()
    spoken: frozenset[str] = frozenset({VCARD, GAME})
    language: Annotated[str, matching("[a-z]{2,3}(-[a-z0-9]+)*")] = "en"
    texts: Annotated[Mapping[str, str], texts] = MappingProxyType({})
    evidence_lines: Annotated[int, at_least(1), at_most(200)] = 50
    evidence_key: SecretText = SecretText("")
    report_days: Annotated[int, at_least(1), at_most(90)] = 90
    history_days: NonNegativeInt = 365
    claim_minutes: PositiveFloat = 15.0
    flags_of_account: NonNegativeInt = 3
