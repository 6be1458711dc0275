"""What operators can have a server do: its commands, tied to its parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xmppd.admin.backup import BackupCommands
from xmppd.admin.blocks import BlockCommands
from xmppd.admin.builtin import StoreCommands, UserCommands
from xmppd.admin.bulk import BulkCommands
from xmppd.admin.certificates import CertificateCommands
from xmppd.admin.commands import Command, commands_of
from xmppd.admin.doctor import DoctorCommands
from xmppd.admin.follow import FollowCommands
from xmppd.admin.friends import FriendCommands
from xmppd.admin.logs import LogCommands
from xmppd.admin.messages import MessageCommands
from xmppd.admin.migration import MigrateCommands
from xmppd.admin.presence import PresenceCommands
from xmppd.admin.rights import RightsCommands
from xmppd.admin.rosters import RosterCommands
from xmppd.admin.sessions import SessionCommands
from xmppd.admin.tokens import TokenCommands
from xmppd.backups import BackupOffice
from xmppd.certificates import CertificateOffice
from xmppd.core.blockoffice import BlockOffice
from xmppd.core.friendships import Friendships
from xmppd.core.roster.office import RosterOffice
from xmppd.core.roster.repair import RosterRepair
from xmppd.doctor.office import Doctor
from xmppd.moving import MigrateOffice
from xmppd.offices import (
    AccountOffice,
    BulkOffice,
    FriendOffice,
    LogOffice,
    MessageOffice,
    PresenceOffice,
    StoreOffice,
    TokenOffice,
)
from xmppd.overview import Overview
from xmppd.sessionoffice import SessionOffice
from xmppd.tracing import Tracing
from xmppd.watching import Watching

if TYPE_CHECKING:
    from xmppd.app import App


def operators_commands(app: App) -> Iterator[Command]:
    """Those that need no more than the parts of a server that may not be listening."""
    for group in _groups(app):
        yield from commands_of(group)


def _groups(app: App) -> Iterator[object]:
    config, end = app.config, app.binding.end
    domains = config.server.domains
    yield BulkCommands(BulkOffice(app.accounts), domains)
    yield UserCommands(AccountOffice(app.accounts, app.server), domains)
    yield RightsCommands(app.rights)
    yield SessionCommands(SessionOffice(app, end))
    yield TokenCommands(TokenOffice(app.tokens, app.accounts, app.sessions, end, app.everywhere))
    repairs = RosterRepair(app.rosters, app.contacts, app.accounts, frozenset(domains))
    yield RosterCommands(RosterOffice(app.rosters, app.accounts, app.contacts, repairs))
    friends = Friendships(app.rosters, app.contacts, app.accounts, by="admin")
    yield FriendCommands(FriendOffice(friends))
    yield PresenceCommands(PresenceOffice(app.sessions, app.visibility, app.blocks))
    recalled = app.server.recall
    yield MessageCommands(MessageOffice(app.messages.fates, app.everywhere, recalled, domains))
    yield LogCommands(LogOffice(app.levels, app.everywhere))
    tracing = Tracing(app)
    app.following.serve("trace", tracing.open)
    app.following.serve("top", Overview(app).open)
    app.following.serve("event watch", Watching(app.events).open)
    yield FollowCommands(app.following)
    yield BlockCommands(BlockOffice(app.blocks, app.blocking, app.accounts))
    yield StoreCommands(StoreOffice(app.store, app.tables))
    yield BackupCommands(BackupOffice(lambda: app.config, app.store, app.now))
    yield DoctorCommands(Doctor(lambda: app.config, app.store, app.cache, app.everywhere))
    changing = app.loader.changing
    yield CertificateCommands(CertificateOffice(lambda: app.config, app.shared, app.everywhere, changing))
    folder = config.server.data_folder.absolute() / "migrations"
    yield MigrateCommands(MigrateOffice(app.accounts, app.arrivals, app.store, folder))
