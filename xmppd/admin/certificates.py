"""The commands about certificates of client connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from xmppd.admin.commands import command


class Certificates(Protocol):
    """What `certificate` commands need. With `everywhere` of all nodes, each row with its `node`; one with a
    `problem` stands for a node that refused or did not answer.
    """

    async def rows(self, *, everywhere: bool) -> Sequence[Mapping[str, Any]]:
        """A row for each domain."""

    async def reload(self, *, everywhere: bool) -> Sequence[Mapping[str, Any]]:
        """Take what the files hold now; a row for each certificate. CommandError when one cannot be used:
        then all stay as they were.
        """


class CertificateCommands:
    """`certificate ...`: what clients are shown."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates

    @command(
        "List the certificate of each domain, as clients are shown it", name="certificate list", reads=True
    )
    async def every(self, *, all: Annotated[bool, "of all nodes"] = False) -> list[dict[str, Any]]:
        """One row for each domain: `file`, `names`, `issuer`, `begins`, `ends`, `days_left`, `sha256` of the
        one at work, and whether the file `on_disk` has the same.
        """
        return [dict(row) for row in await self.certificates.rows(everywhere=all)]

    @command("Read the files of certificates again while sessions stay connected", name="certificate reload")
    async def reload(self, *, all: Annotated[bool, "on all nodes"] = False) -> list[dict[str, Any]]:
        """One row for each certificate, with whether it has `changed`. With one that cannot be used all stay
        as they were.
        """
        return [dict(row) for row in await self.certificates.reload(everywhere=all)]
