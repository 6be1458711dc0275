"""slixmpp does what an operator does, by ad-hoc commands (XEP-0050), also by the names of XEP-0133."""

from types import SimpleNamespace

import pytest

ROOT = SimpleNamespace(jid="root@localhost", password="geheim", name="root")
ROLES = {"root": {"accounts": [ROOT.jid], "scopes": ["*"]}}
ADMIN = "http://jabber.org/protocol/admin#"


async def run(client, node, **values):
    """The answer to a command whose form, if it has one, was filled in."""
    adhoc = client.plugin["xep_0050"]
    answer = (await adhoc.send_command("localhost", node))["command"]
    if answer["status"] != "executing":
        return answer
    form = client.plugin["xep_0004"].make_form(ftype="submit")
    for name, value in values.items():
        form.add_field(var=name, value=value)
    sid = answer["sessionid"]
    done = await adhoc.send_command("localhost", node, action="complete", payload=form, sessionid=sid)
    return done["command"]


@pytest.mark.asyncio
async def test_an_operator_adds_lists_and_ends(own_server, client, refused):
    server = own_server(plugins={"config": {"adhoc": {"roles": ROLES}}})
    server.add(ROOT)
    alice = server.account("alice")
    root = await client(ROOT, "desk", server=server).login()
    player = await client(alice, "game", server=server).login()
    found = await root.plugin["xep_0050"].get_commands("localhost")
    nodes = {node for _, node, _ in found["disco_items"]["items"]}
    assert {"user add", "session kick", f"{ADMIN}add-user"} <= nodes
    assert await refused(player.plugin["xep_0050"].send_command("localhost", "user list")) == (
        "auth",
        "forbidden",
    )
    new = {"accountjid": "zoe@localhost", "password": "neu", "password-verify": "neu"}
    assert (await run(root, f"{ADMIN}add-user", **new))["status"] == "completed"
    assert "zoe@localhost" in {row["account"] for row in server.run("user", "list")}
    answer = await run(root, f"{ADMIN}get-online-users-list")
    assert set(answer["form"].get_fields()["onlineuserjids"]["value"]) == {ROOT.jid, alice.jid}
    ended = await run(root, "session kick", address=alice.jid)
    assert ended["form"]["items"][0]["ended"] == f"{alice.jid}/game"
    await player.disconnected()
    zoe = SimpleNamespace(jid="zoe@localhost", password="neu", name="zoe")
    await client(zoe, "desk", server=server).login()
