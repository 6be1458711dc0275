"""go-sendxmpp, the XMPP client of scripts and cron jobs."""

import asyncio
import contextlib

import pytest

SECONDS = 20.0


@pytest.fixture
def sendxmpp(server, program, tmp_path):
    """Runs go-sendxmpp as an account, on the port for STARTTLS or (-t) direct TLS."""
    path, environment = program("go-sendxmpp")

    @contextlib.asynccontextmanager
    async def run(account, *arguments, environment=environment):
        port = server.ports["direct" if "-t" in arguments else "starttls"]
        config = tmp_path / "sendxmpprc"
        config.write_text(
            f"username: {account.jid}\njserver: localhost\nport: {port}\npassword: {account.password}\n"
        )
        config.chmod(0o600)
        process = await asyncio.create_subprocess_exec(
            path,
            "-f",
            str(config),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    return run


async def finish(process, text):
    """Give it its input, and wait for its end; the exit code and what it said: newer releases complain on
    stdout.
    """
    async with asyncio.timeout(SECONDS):
        said = await process.communicate(text.encode())
    return process.returncode, b"".join(said).decode()


async def said_by(process, address):
    """The next message of that sender. Newer releases first say that they should not be run by root."""
    async with asyncio.timeout(SECONDS):
        while line := (await process.stdout.readline()).decode():
            _, sender, text = line.split(" ", 2)
            if sender == f"{address}:":
                return text.removesuffix("\n")
    raise AssertionError("it has ended")


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", [[], ["-t"]], ids=["starttls", "direct"])
async def test_it_sends_to_slixmpp(server, client, sendxmpp, mode):
    account, bob = server.account("alice"), await client(server.account("bob")).login()
    async with sendxmpp(account, *mode, bob.bare) as process:
        code, _ = await finish(process, "the backup is done\nall 3 & <done>\n")
        assert code == 0
    message = await bob.message(account.jid)
    assert message["body"] == "the backup is done\nall 3 & <done>"
    assert message["type"] == "chat"


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", [[], ["-t"]], ids=["starttls", "direct"])
async def test_it_listens(server, client, sendxmpp, mode):
    account, alice = server.account("bob"), await client(server.account("alice")).login()
    alice.xmpp.send_message(mto=account.jid, mbody="sent before", mtype="chat")
    await alice.expect_nothing()
    # Another resource of the same account, which takes no messages, sees when the program is there.
    watcher = await client(account).login(ppriority=-1)
    async with sendxmpp(account, "-l", *mode) as process:
        await watcher.presence(account.jid)
        alice.xmpp.send_message(mto=account.jid, mbody="sent now", mtype="chat")
        heard = [await said_by(process, alice.bare) for _ in range(2)]
    assert heard == ["sent before", "sent now"]
    await watcher.presence(account.jid, "unavailable")  # it was killed


@pytest.mark.asyncio
async def test_it_is_told_that_its_password_is_wrong(server, sendxmpp):
    account = server.account("alice")
    async with sendxmpp(account._replace(password="wrong"), account.jid) as process:
        code, said = await finish(process, "hello")
    assert code != 0
    assert "not-authorized" in said


@pytest.mark.asyncio
async def test_it_does_not_talk_to_a_server_it_cannot_trust(server, sendxmpp, program, tmp_path):
    _, environment = program("go-sendxmpp")
    nobody = {**environment, "SSL_CERT_FILE": "/dev/null", "SSL_CERT_DIR": str(tmp_path)}
    account = server.account("alice")
    async with sendxmpp(account, account.jid, environment=nobody) as process:
        code, said = await finish(process, "hello")
    assert code != 0
    assert "certificate" in said
