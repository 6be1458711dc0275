"""How to log in to a server that has just begun to listen, for the person who started it on a terminal."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from xmppd.config import Config
from xmppd.text import host_and_port

DEMO_ACCOUNTS = "demo-accounts"
"""In the data folder: lines of an address and its password, which `scripts/run` writes."""

DEVELOPMENT_CERTIFICATE = "development.crt"

AT_LOCALHOST = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::")
"""Where one must listen to be found at `localhost`."""

WAYS = {
    "starttls": "STARTTLS",
    "direct": "direct TLS",
    "none": "no TLS",
}


def demo_accounts(config: Config) -> dict[str, str]:
    """The accounts to try the server with, and their passwords, as they were when they were made."""
    try:
        lines = (config.server.data_folder / DEMO_ACCOUNTS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return {}
    return {account: password for account, _, password in (line.partition(" ") for line in lines) if password}


def login_guide(config: Config, ports: Sequence[int], accounts: Mapping[str, str]) -> str:
    """The text: where it listens, who can log in, an example. `ports` are those in use, by listener."""
    doors = list(zip(config.listen.c2s, ports, strict=True))
    rows = [("server", f"{_shown(door.address)}, port {port} ({WAYS[door.tls]})") for door, port in doors]
    rows += [("account", f"{account}, password {password}") for account, password in accounts.items()]
    if not accounts:
        rows.append(("account", f"make one by: xmppd user add NAME@{config.server.domains[0]}"))
    where = " on this machine" if all(_is_local(door.address) for door, _ in doors) else ""
    paragraphs = [
        f"Log in with any XMPP client{where}:",
        "\n".join(f"    {name:<9} {value}" for name, value in rows),
    ]
    folder = config.server.data_folder.absolute()
    certificate = None if config.tls.certificates else folder / DEVELOPMENT_CERTIFICATE
    if certificate is not None:
        paragraphs.append(
            "The certificate is made by the server itself: let the client trust it when it asks.\n"
            f"It is {certificate}."
        )
    usual = [(door.address, port) for door, port in doors if door.tls == "starttls"]
    if usual and len(accounts) > 1:
        paragraphs += _example(*usual[0], list(accounts.items()), certificate)
    paragraphs.append(f"Everything is kept in {folder}. Ctrl-C stops the server.")
    text = "\n\n".join(paragraphs)
    return "\n" + "".join(f"  {line}\n" if line else "\n" for line in text.split("\n")) + "\n"


def _example(
    address: str, port: int, accounts: Sequence[tuple[str, str]], certificate: Path | None
) -> list[str]:
    (sender, password), (receiver, _) = accounts[:2]
    domain = sender.partition("@")[2]
    host = domain if domain == "localhost" and address in AT_LOCALHOST else address
    trust = f"SSL_CERT_FILE={shlex.quote(str(certificate))} " if certificate is not None else ""
    send = f"go-sendxmpp -u {sender} -p {shlex.quote(password)} -j {host_and_port(host, port)} {receiver}"
    return [
        "For example with go-sendxmpp (apt-get install go-sendxmpp), in another terminal:",
        f"    echo Hello | {trust}\\\n      {send}",
        "Or in profanity (apt-get install profanity), which asks for the password:",
        f"    /connect {sender} server {host} port {port} tls trust",
    ]


def _shown(address: str) -> str:
    return "any address of this machine" if address in ("0.0.0.0", "::") else address


def _is_local(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
