"""What is configured of invites."""

from __future__ import annotations

from typing import Annotated, Literal

from xmppd.plugin import PluginConfig, PositiveFloat, PositiveInt, SecretText, at_least, at_most


class InvitesConfig(PluginConfig):
    """An invite lives so many `seconds` if who makes it does not say, and at most `seconds_most`; it is kept
    `kept_seconds` longer, so that all learn how it ended. An account has so many `pending` ones that it made,
    and so many that are made to it. `senders`: who may invite somebody. `offline`: whether an invite to
    somebody who is not there is kept for him. `message`: what is written to who has no client that knows
    invites, with `{who}`, `{what}` and `{kind}` in it; "": nothing. `key` signs them, `key_id` says which
    one that is.
    """

    seconds: PositiveFloat = 300.0
    seconds_most: Annotated[float, at_least(1), at_most(7 * 86400)] = 86400.0
    kept_seconds: PositiveFloat = 3600.0
    pending: Annotated[int, at_least(1), at_most(1000)] = 20
    payload_bytes: Annotated[int, at_least(0), at_most(16_384)] = 2048
    senders: Literal["friends", "anybody"] = "friends"
    offline: Literal["keep", "refuse"] = "keep"
    message: str = "{who} invites you to {what}."
    key: SecretText | None = None
    key_id: str = "1"
    per_minute: PositiveInt = 30
