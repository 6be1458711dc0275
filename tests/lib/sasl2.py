"""A client of XEP-0388 for worlds: what it sends, and what it was answered."""

import base64
import hmac
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

from scramp import ScramClient

from xmppd import ns
from xmppd.testing import PASSWORD, Client, World

PHONE = "d4565fa7-4d72-4749-b3d3-740edbf87770"
DESK = "0d6a3f6e-7c1b-4f6e-9a53-3a5d3f1f2b10"
S, B, F = (f"{{{name}}}" for name in (ns.SASL2, ns.BIND2, ns.FAST))
BIND = f"<bind xmlns='{ns.BIND2}'/>"


def b64(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def plain(user: str, password: str = PASSWORD, authzid: str = "") -> str:
    """The initial response of PLAIN."""
    return b64(f"{authzid}\0{user}\0{password}")


def agent(id: str, software: str = "", device: str = "") -> str:
    """`<user-agent/>`."""
    about = f"<software>{software}</software>" if software else ""
    about += f"<device>{device}</device>" if device else ""
    return f"<user-agent id='{id}'>{about}</user-agent>"


def tagged(tag: str, inline: str = "") -> str:
    """`<bind/>`."""
    return f"<bind xmlns='{ns.BIND2}'><tag>{tag}</tag>{inline}</bind>"


def request(mechanism: str, initial: str | None, more: str = "") -> str:
    """`<authenticate/>`; `initial` is the text of the initial response, None for none."""
    response = "" if initial is None else f"<initial-response>{initial}</initial-response>"
    return f"<authenticate xmlns='{ns.SASL2}' mechanism='{mechanism}'>{response}{more}</authenticate>"


def condition(answer: Element) -> str:
    """Why a login was refused."""
    assert answer.tag == f"{S}failure", answer.tag
    return answer[0].tag.rpartition("}")[2]


def identifier(answer: Element) -> str:
    """Who a client is after its login."""
    assert answer.tag == f"{S}success", [answer.tag, *(child.tag for child in answer)]
    return answer.findtext(f"{S}authorization-identifier", "")


async def opened(
    world: World,
    sender: str = "",
    node: int | None = None,
    peer: str = "127.0.0.1",
    bindings: Mapping[str, bytes] | None = None,
) -> Client:
    """A client that was shown its features."""
    client = world.connect(peer, node=node, bindings=bindings)
    await client.open(more=f"from='{sender}'" if sender else "")
    return client


async def login(
    client: Client, user: str, more: str = "", *, mechanism: str = "PLAIN", initial: str | None = None
) -> Element:
    """Log in; the answer. After a success the features are taken, and kept at `client.jid` who it is."""
    await client.send(request(mechanism, plain(user) if initial is None else initial, more))
    answer = await client.receive()
    if answer.tag == f"{S}success":
        client.jid = identifier(answer)
        assert (await client.receive()).tag == f"{{{ns.STREAM}}}features"
    return answer


async def scram(
    client: Client, user: str, more: str = "", *, mechanism: str = "SCRAM-SHA-256", password: str = PASSWORD
) -> Element:
    """Log in by SCRAM, with the server's proof checked; the last answer, the features behind it not taken."""
    dance = ScramClient([mechanism], user, password)
    await client.send(request(mechanism, b64(dance.get_client_first()), more))
    challenge = await client.receive()
    assert challenge.tag == f"{S}challenge", challenge.tag
    dance.set_server_first(base64.b64decode(challenge.text or "").decode())
    await client.send(f"<response xmlns='{ns.SASL2}'>{b64(dance.get_client_final())}</response>")
    answer = await client.receive()
    if answer.tag == f"{S}success":
        dance.set_server_final(base64.b64decode(answer.findtext(f"{S}additional-data", "")).decode())
        client.jid = identifier(answer)
    return answer


# ------------------------------------------------------------------------------------- tokens

NONE = "HT-SHA-256-NONE"


def wanted(mechanism: str = NONE) -> str:
    """`<request-token/>`."""
    return f"<request-token xmlns='{ns.FAST}' mechanism='{mechanism}'/>"


def shown(user: str, token: str, bound: bytes = b"") -> str:
    """The initial response of a mechanism for tokens."""
    return b64(user.encode() + b"\0" + hmac.digest(token.encode(), b"Initiator" + bound, "sha256"))


def token_in(answer: Element) -> str:
    """The token that came with a success, "" for none."""
    assert answer.tag == f"{S}success", [answer.tag, *(child.tag for child in answer)]
    token = answer.find(f"{F}token")
    return "" if token is None else token.get("token", "")


async def fast(
    client: Client,
    user: str,
    token: str,
    *,
    mechanism: str = NONE,
    bound: bytes = b"",
    id: str = PHONE,
    attributes: str = "",
    more: str = "",
) -> Element:
    """Log in by a token; the answer, in which the server has proved that it knows the token, too."""
    about = f"<fast xmlns='{ns.FAST}'{attributes}/>{agent(id)}{more}"
    answer = await login(client, user, about, mechanism=mechanism, initial=shown(user, token, bound))
    if answer.tag == f"{S}success":
        proof = base64.b64decode(answer.findtext(f"{S}additional-data", ""))
        assert proof == hmac.digest(token.encode(), b"Responder" + bound, "sha256")
    return answer


async def token_for(
    world: World, user: str, *, id: str = PHONE, mechanism: str = NONE, node: int | None = None
) -> str:
    """A token that a client got with its password; it has left again."""
    client = await opened(world, node=node)
    token = token_in(await login(client, user, agent(id) + wanted(mechanism)))
    assert token
    await client.drop()
    return token


async def by_token(world: World, user: str, token: str, *, node: int | None = None, **how: Any) -> str:
    """Log in by a token on a connection of its own, and leave; "success", or why not."""
    client = await opened(world, node=node)
    answer = await fast(client, user, token, **how)
    await client.drop()
    return "success" if answer.tag == f"{S}success" else condition(answer)
