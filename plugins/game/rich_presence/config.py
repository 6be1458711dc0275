"""What is configured of rich presence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from xmppd.plugin import (
    NonNegativeFloat,
    PluginConfig,
    PositiveInt,
    SecretText,
    Section,
    at_least,
    at_most,
)

from .schema import Schema

Policy = Literal["friends", "party", "nobody"]
POLICIES: Final = ("friends", "party", "nobody")


class Game(Section):
    """One game. `name` and `uri` are what standard clients are told of it (XEP-0196), the id where there is
    no name. `says` is a JSON Schema (see `schema.py`) of what is said of it, of so many `bytes` at most.
    `status` is what standard clients show of who says nothing himself, with values in braces: `Playing
    {map}`; and `show` what such a one is shown as. `join`: who may have a join secret; the first where
    nothing is said.
    """

    name: str = ""
    uri: str = ""
    says: Annotated[Any, Schema] = Schema({})
    bytes: Annotated[int, at_least(2), at_most(8192)] = 2048
    status: str = ""
    show: Literal["", "away", "chat", "dnd", "xa"] = ""
    join: tuple[Policy, ...] = POLICIES


class RichPresenceConfig(PluginConfig):
    """What is said within `window` seconds of what was shown last is shown when they are over, and then only
    the newest of it. One session says something of so many games at once, and changes it so often in a
    minute, at once too. `key` signs what the back end says, `key_id` tells which one that is. An account
    hides from so many groups and friends.
    """

    games: Mapping[str, Game] = {}
    window: NonNegativeFloat = 1.0
    games_of_session: Annotated[int, at_least(1), at_most(32)] = 4
    changes_per_minute: PositiveInt = 120
    key: SecretText | None = None
    key_id: str = "1"
    hidden_from: Annotated[int, at_least(1), at_most(1000)] = 300
