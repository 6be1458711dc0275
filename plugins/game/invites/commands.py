"""What operators and back ends do with invites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

from xmppd.plugin import CommandError, Jid, StanzaError, command, utc_stamp

from .states import CANCELLED, Invite, values_of

if TYPE_CHECKING:
    from . import Invites


class InviteCommands:
    """The commands."""

    @property
    def _it(self) -> Invites:
        return cast("Invites", self)

    @command("Invite somebody in the name of an account", name="invite send")
    async def send(
        self,
        sender: Annotated[Jid, "who invites"],
        to: Annotated[Jid, "whom"],
        kind: Annotated[str, "game, match or party"],
        target: Annotated[str, "the id of that"],
        *,
        game: Annotated[str, "which game it is about"] = "",
        payload: Annotated[str, "what comes with it"] = "",
        seconds: Annotated[int | None, "how long it may be answered"] = None,
    ) -> dict[str, Any]:
        """Blocks hold; who is whose friend, and how often one may, is the caller's matter."""
        it = self._it
        try:
            life = float(it.config.seconds if seconds is None else seconds)
            wanted = it.made_of(sender.bare, to.bare, kind, target, game, payload, life)
            async with it.server.writing(sender.bare) as exists:
                if not exists:
                    raise CommandError(f"there is no account {sender.bare}", field="sender")
                if await it.is_barred(sender.bare, to.bare):
                    raise CommandError("one of the two has blocked the other")
                return shown(await it.make(sender.bare, wanted, by_operator=True))
        except (StanzaError, ValueError) as error:
            raise CommandError(str(error)) from None

    @command("Show the invites that an account made and got", name="invite list", reads=True)
    async def list_of(self, account: Annotated[Jid, "whose"]) -> list[dict[str, Any]]:
        """Those that are kept, ended ones too, the newest first."""
        it = self._it
        found = [*await it.made_by(account.bare, also_old=True), *await it.got_by(account.bare)]
        return [shown(one) for one in sorted(found, key=lambda one: one.at, reverse=True)]

    @command("Take back an invite", name="invite cancel")
    async def take_back(self, to: Annotated[Jid, "who was invited"], id: str) -> dict[str, Any]:
        """It is cancelled, if it is pending."""
        it = self._it
        try:
            async with it.server.writing(to.bare):
                return shown(await it.settled(await it.found(to.bare, id), CANCELLED))
        except StanzaError as error:
            raise CommandError(error.text, field="id") from None


def shown(one: Invite) -> dict[str, Any]:
    """An invite as operators see it."""
    values = values_of(one)
    times = {name: utc_stamp(values[name]) for name in ("at", "expires")}
    return {"from": values.pop("sender"), **values, **times}
