"""Gajim on a screen: it catches up by the archive, gets copies, and resumes. It is spoken to over its bus."""

import asyncio
import re
from pathlib import Path

import pytest
from desktops import until

RECEIVED, SENT = 4, 6
HISTORY = "SELECT kind, message FROM logs WHERE message IS NOT NULL ORDER BY log_line_id"


@pytest.mark.asyncio
async def test_gajim(own_server, client, tunnel, desktop, rows, plugins):
    server = own_server(plugins=plugins)
    way, account = await tunnel(server), server.account("alice")
    bob = await client(server.account("bob"), "desk", server=server).login()
    bob.xmpp.send_message(mto=account.jid, mbody="before", mtype="chat")
    await bob.expect_nothing()

    folder = desktop.folder / "gajim"
    certificate = desktop.folder / "certificate"
    desktop.give(server.certificate, to=certificate)
    program = desktop.folder / "account.py"
    desktop.give(Path(__file__).parent / "gajim_account.py", to=program)
    about = (account.jid, account.password, str(way.port), str(certificate))
    desktop.done("/usr/bin/python3", str(program), str(folder), *about)
    gajim = desktop.run("gajim", "-s", "-c", str(folder), "-l", ".nbxmpp=INFO,gajim=INFO")
    history = [(RECEIVED, "before")]
    await rows(folder / "logs.db", HISTORY, history)

    phone = await client(account, "phone", server=server).login()
    phone.xmpp.send_message(mto=bob.jid, mbody="from the phone", mtype="chat")
    await bob.message(phone)
    await rows(folder / "logs.db", HISTORY, history := [*history, (SENT, "from the phone")])
    bob.xmpp.send_message(mto=phone.jid, mbody="to the phone", mtype="chat")
    await rows(folder / "logs.db", HISTORY, history := [*history, (RECEIVED, "to the phone")])

    async def say(text):
        command = ("gajim-remote", "send_chat_message", bob.bare, text, account.jid)
        await asyncio.to_thread(desktop.done, *command)

    listening = ("gajim-remote", "list_accounts")
    await asyncio.to_thread(until, lambda: desktop.is_done(*listening), "Gajim does not listen")
    await say("from Gajim")
    assert (await bob.message(account.jid))["body"] == "from Gajim"
    await rows(folder / "logs.db", HISTORY, history := [*history, (SENT, "from Gajim")])

    before = len(server.records)
    way.silence()
    await say("out of the tunnel")
    bob.xmpp.send_message(mto=f"{account.jid}/gajim", mbody="into the tunnel", mtype="chat")
    await bob.xmpp.plugin["xep_0199"].send_ping("localhost")
    way.cut()
    way.mend()
    await asyncio.to_thread(server.wait_for, "session-resumed", before)
    assert (await bob.message(account.jid))["body"] == "out of the tunnel"
    history += [(SENT, "out of the tunnel"), (RECEIVED, "into the tunnel")]
    await rows(folder / "logs.db", HISTORY, history)
    await bob.expect_nothing()

    said = desktop.said()
    assert f"Discovered MAM: {account.jid}" in said and "Received blocking list" in said
    assert not re.findall("<iq [^>]*type='error'.*", said)
    assert not re.findall(r".*\((?:W|E|C)\) (?:nbxmpp|gajim\.client|gajim\.c\.m\.).*", said)
    await asyncio.to_thread(desktop.end, gajim)
