"""`certificate list` and `certificate reload`: what clients are shown, and files that changed."""

import asyncio
import hashlib
import shutil
import ssl
from typing import Any

import pytest

from xmppd.errors import CommandError
from xmppd.net.certificates import KeyPair, development_certificate


async def shown_at(port: int) -> bytes:
    """The certificate that a client is shown there."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found
    finally:
        writer.close()


def fingerprint(pair: KeyPair) -> str:
    return mark(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()))


def mark(der: bytes) -> str:
    return hashlib.sha256(der).digest().hex(":").upper()


async def asked(server: Any, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = await asyncio.to_thread(server.command, name)
    return rows


@pytest.mark.asyncio
async def test_files_are_read_again_and_sessions_stay(prepared: Any, free_ports: Any) -> None:
    server = prepared()
    first = development_certificate(server.folder / "first", ["localhost"])
    second = development_certificate(server.folder / "second", ["localhost", "two"])
    (port,) = free_ports(1)
    listeners = [{"port": port, "tls": "direct"}, {"port": 0, "tls": "none"}]
    pair = {"certificate": str(first.certificate), "key": str(first.key)}
    server.configure({"listen": {"c2s": listeners}, "tls": {"certificates": {"*": pair}}})
    await server.start()
    server.add("alice")
    alice = await server.login("alice")
    old, new = fingerprint(first), fingerprint(second)
    [row] = await asked(server, "certificate list")
    assert (row["domain"], row["file"], row["sha256"]) == ("localhost", str(first.certificate), old)
    assert row["names"] == ["127.0.0.1", "::1", "localhost"]
    assert row["days_left"] in (364, 365) and row["on_disk"] == "the same"
    assert row["issuer"] == "CN=xmppd development certificate"

    shutil.copy(second.certificate, first.certificate)  # half of a renewal
    [row] = await asked(server, "certificate list")
    assert row["sha256"] == old and row["on_disk"].startswith("another one, from ")
    with pytest.raises(CommandError, match=str(first.key)) as refused:
        await asked(server, "certificate reload")
    assert refused.value.exit_code == 78
    assert mark(await shown_at(port)) == old
    assert (await asked(server, "certificate list"))[0]["sha256"] == old

    shutil.copy(second.key, first.key)
    [row] = await asked(server, "certificate reload")
    assert row == {"file": str(first.certificate), "sha256": new, "changed": True}
    assert mark(await shown_at(port)) == new
    assert (await asked(server, "certificate reload"))[0]["changed"] is False
    [row] = await asked(server, "certificate list")
    assert (row["sha256"], row["on_disk"]) == (new, "the same") and "two" in row["names"]

    first.certificate.unlink()
    [row] = await asked(server, "certificate list")
    assert row["sha256"] == new and row["on_disk"].startswith("cannot be used: ")
    await alice.ping()
    assert not alice.is_over
