"""Settings of `riot_profile`."""

from __future__ import annotations

from typing import Annotated

from xmppd import ns
from xmppd.plugin import PluginConfig, PositiveInt, at_least, at_most


class RiotProfileConfig(PluginConfig):
    """`domains`: where the dialect is spoken; nothing: on all. `mechanisms`: those whose `<auth/>` has tokens
    in the children `tokens`; of these the ones in `proving` let in, all of them, and must be of one player.
    `prefix`: what stands before the password of PLAIN ("": nothing). `namespace` is what the namespaces of
    queries begin with, `urn` those of other things; `list_name` the list of whom one blocks, `default_group`
    the group of who is in none, `platform` where names are from. `games_bytes`: so long may the `<games/>` of
    a presence be, and so many messages of a conversation are shown (`archive_messages`).
    """

    domains: tuple[str, ...] = ()
    mechanisms: tuple[str, ...] = ("X-Riot-RSO-PAS", "X-Riot-RSO")
    tokens: tuple[str, ...] = ("rso_token", "pas_token")
    proving: tuple[str, ...] = ("rso_token", "pas_token")
    without_tls: bool = False
    prefix: str = "AIR_"
    namespace: str = f"{ns.QUERIES}riotgames"
    urn: str = "urn:riotgames"
    list_name: str = "LOL"
    default_group: str = "**Default"
    platform: str = "riot"
    games_bytes: PositiveInt = 8192
    archive_messages: Annotated[int, at_least(1), at_most(100)] = 50
