"""Why a name cannot be had, or that nobody has it."""

from __future__ import annotations

from datetime import UTC, datetime

from xmppd.core.gone import GONE_SECONDS
from xmppd.errors import XmppdError


class AccountExists(XmppdError):
    """There is an account of this name already."""

    def __init__(self, account: str) -> None:
        super().__init__(f"the account {account} exists already")


class NameGone(AccountExists):
    """The account of this name was removed a moment ago, and another server may not be done with it."""

    def __init__(self, account: str) -> None:
        XmppdError.__init__(
            self,
            f"the account {account} was removed just now; its name is free in {GONE_SECONDS:.0f} seconds",
        )


class AccountUnknown(XmppdError):
    """There is no account of this name."""

    def __init__(self, account: str) -> None:
        super().__init__(f"there is no account {account}")


class NameErased(AccountExists):
    """The account of this name was erased, and nobody may have it yet."""

    def __init__(self, account: str, until: float) -> None:
        day = datetime.fromtimestamp(until, UTC).date()
        XmppdError.__init__(self, f"the account {account} was erased; its name is free on {day}")


class NameMoved(AccountExists):
    """The account of this name has another one, and who writes to this one is told so."""

    def __init__(self, account: str) -> None:
        XmppdError.__init__(self, f"the account {account} was renamed; its old name is not free yet")
