"""mcabber, a client for the terminal, at the hands of a user."""

import asyncio

import pytest
from terminals import ENTER, Terminal


@pytest.fixture
def mcabber(server, program, tmp_path):
    """Starts mcabber for an account: `mcabber(account, "direct")`."""
    path, environment = program("mcabber")
    started = []

    def start(account, mode, **more):
        settings = {
            "jid": account.jid,
            "password": account.password,
            "server": "127.0.0.1",
            "port": server.ports[mode],
            "resource": "mcabber",
            "disable_random_resource": 1,
            "tls": int(mode == "starttls"),
            "ssl": int(mode == "direct"),
            "ssl_ca": server.certificate,
            **more,
        }
        config = tmp_path / "mcabberrc"
        config.touch(0o600)
        config.write_text("".join(f"set {key} = {value}\n" for key, value in settings.items()))
        terminal = Terminal([path, "-f", str(config)], environment)
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", ["starttls", "direct"])
async def test_a_chat_between_mcabber_and_slixmpp(server, client, mcabber, mode):
    account, alice = server.account("bob"), await client(server.account("alice"), "desk").login()
    bob = mcabber(account, mode)
    await bob.see("Your status has been set")

    alice.xmpp.send_message(mto=account.jid, mbody="hello-from-slixmpp", mtype="chat")
    await bob.see(alice.bare)  # a new line in the list of contacts
    bob.type("/roster unread_first" + ENTER + ENTER)
    await bob.see("<== hello-from-slixmpp")
    bob.type("Grüße-from-mcabber" + ENTER)
    message = await alice.message(f"{account.jid}/mcabber")
    assert (message["type"], message["body"]) == ("chat", "Grüße-from-mcabber")

    bob.type("/quit" + ENTER)
    assert await asyncio.to_thread(bob.wait) == 0


@pytest.mark.asyncio
async def test_mcabber_befriends_slixmpp(server, client, mcabber):
    account, alice = server.account("bob"), await client(server.account("alice"), "desk").login()
    bob = mcabber(account, "starttls")
    await bob.see("Your status has been set")
    bob.type(f"/add {alice.bare} Alice" + ENTER)
    await alice.presence(account.jid, "subscribe")
    alice.xmpp.send_presence_subscription(pto=account.jid, ptype="subscribed")
    alice.xmpp.send_presence_subscription(pto=account.jid, ptype="subscribe")
    await bob.see("wants to subscribe")
    bob.type("/event * accept" + ENTER)
    await alice.presence(f"{account.jid}/mcabber")
    while (await alice.push(account.jid))["subscription"] != "both":
        pass

    bob.type("/status dnd busy-with-tests" + ENTER)
    seen = await alice.presence(f"{account.jid}/mcabber")
    while seen["show"] != "dnd":
        seen = await alice.presence(f"{account.jid}/mcabber")
    assert seen["status"] == "busy-with-tests"
    bob.type("/quit" + ENTER)
    await alice.presence(f"{account.jid}/mcabber", "unavailable")


@pytest.mark.asyncio
async def test_mcabber_is_told_that_its_password_is_wrong(server, mcabber):
    bob = mcabber(server.account("bob")._replace(password="wrong"), "starttls")
    await bob.see("Authentication failed")
