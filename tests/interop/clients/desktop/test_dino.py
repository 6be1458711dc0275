"""Dino on a screen: it catches up by the archive, gets copies, and resumes.

It knows no other address than that of the domain, and trusts the authorities of the system: the network and
the file with those are others while this runs.
"""

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing

import pytest
from desktops import until
from tunnels import Tunnel

RECEIVED, SENT = 0, 1
HISTORY = "SELECT direction, body FROM message ORDER BY id"
ACCOUNT = (
    "INSERT INTO account (bare_jid, resourcepart, password, alias, enabled) VALUES (?, 'dino', ?, '', 1)"
)
NOT_THERE = {
    "http://jabber.org/protocol/pubsub",
    "http://jabber.org/protocol/pubsub#owner",
    "urn:xmpp:extdisco:2",
}
DISCO = "http://jabber.org/protocol/disco#info"


def network(change):
    """Take away, or give back, the way to the world, which Dino looks at. There is no such way elsewhere."""
    subprocess.run(["ip", "route", change, "default", "dev", "lo"], check=True)


def refused(said):
    """To whom and about what the questions were that had an error for an answer."""
    asked = {}
    for question in re.finditer(r"<\{jabber:client\}:iq ([^>]*)>\s*<\{([^}]*)\}", said):
        attributes = dict(re.findall(r"\{jabber:client\}:(\w+)='([^']*)'", question[1]))
        if attributes["type"] in ("get", "set"):
            asked[attributes["id"]] = (attributes.get("to", ""), question[2])
        elif attributes["type"] == "error":
            yield asked[attributes["id"]]


@pytest.mark.asyncio
async def test_dino(own_server, client, desktop, rows, plugins):
    server = own_server(plugins=plugins)
    shutil.copyfile(server.certificate, os.environ["XMPPD_TEST_TRUSTED"])
    way, account = Tunnel(server.ports["starttls"], 5222), server.account("alice")
    await way.start()
    bob = await client(server.account("bob"), "desk", server=server).login()
    bob.xmpp.send_message(mto=account.jid, mbody="before", mtype="chat")
    await bob.expect_nothing()

    file = desktop.folder / "share" / "dino" / "dino.db"
    dino = desktop.run("dino-im", log="first")
    await asyncio.to_thread(until, lambda: has_tables(file), "Dino made no tables")
    await asyncio.to_thread(desktop.end, dino)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(ACCOUNT, (account.jid, account.password))
    dino = desktop.run("dino-im", "--print-xmpp=all")
    history = [(RECEIVED, "before")]
    await rows(file, HISTORY, history)

    phone = await client(account, "phone", server=server).login()
    phone.xmpp.send_message(mto=bob.jid, mbody="from the phone", mtype="chat")
    await bob.message(phone)
    await rows(file, HISTORY, history := [*history, (SENT, "from the phone")])
    bob.xmpp.send_message(mto=phone.jid, mbody="to the phone", mtype="chat")
    await rows(file, HISTORY, history := [*history, (RECEIVED, "to the phone")])

    before = len(server.records)
    way.silence()
    network("del")
    bob.xmpp.send_message(mto=f"{account.jid}/dino", mbody="into the tunnel", mtype="chat")
    await bob.xmpp.plugin["xep_0199"].send_ping("localhost")
    way.cut()
    way.mend()
    network("add")
    await asyncio.to_thread(server.wait_for, "session-resumed", before)
    await rows(file, HISTORY, history := [*history, (RECEIVED, "into the tunnel")])

    said = desktop.said()
    for namespace in ("urn:xmpp:carbons:2}:enable", "urn:xmpp:mam:2}:query", "urn:xmpp:blocking}:blocklist"):
        assert namespace in said
    strangers = {(bob.bare, DISCO)}
    wrong = {(to, about) for to, about in refused(said) if about not in NOT_THERE}
    assert wrong <= strangers
    await asyncio.to_thread(desktop.end, dino)
    await way.close()


def has_tables(file):
    """Whether all are there: that of messages is the last with an index."""
    if not file.exists():
        return False
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    return {"account", "message", "mam_catchup", "settings"} <= names
