"""The life of tokens (XEP-0484): how they are replaced, given up, and revoked."""

from typing import Any

import pytest
from sasl2 import (
    BIND,
    DESK,
    PHONE,
    F,
    S,
    by_token,
    fast,
    identifier,
    opened,
    token_for,
    token_in,
    wanted,
)

from xmppd.core.tokens import DAY, TOKENS
from xmppd.errors import StoreTimeout
from xmppd.testing import World

pytestmark = pytest.mark.asyncio
EXPORTER = {"tls-exporter": b"exported", "tls-server-end-point": b"certificate"}
UNIQUE = {"tls-unique": b"finished", "tls-server-end-point": b"certificate"}
ALICE = "alice@localhost"


def mechanisms(features: Any) -> list[str]:
    return [one.text for one in features.findall(f"{S}authentication/{S}inline/{F}fast/{F}mechanism")]


async def rows(world: World, account: str = ALICE) -> list[dict[str, Any]]:
    return (await world.app.store.scan(TOKENS, (account,))).rows


# --------------------------------------------------------------------------------- life of a token


async def test_a_token_ends() -> None:
    async with World() as world:
        token = await token_for(world, "alice")
        world.clock.seconds += 21 * DAY - 1
        assert await by_token(world, "alice", token) == "success"
        token = await token_for(world, "alice")
        world.clock.seconds += 21 * DAY
        assert await by_token(world, "alice", token) == "credentials-expired"


async def test_an_old_token_is_replaced_and_good_until_the_new_one_was_shown() -> None:
    async with World() as world:
        first = await token_for(world, "alice")
        world.clock.seconds += DAY
        lost = token_in(await fast(await opened(world), "alice", first))
        assert lost not in ("", first)
        second = token_in(await fast(await opened(world), "alice", first))
        assert second not in ("", first, lost), "the client has not got the other one"
        assert await by_token(world, "alice", lost) == "not-authorized"
        assert token_in(await fast(await opened(world), "alice", second)) == ""
        assert await by_token(world, "alice", first) == "not-authorized"
        assert await by_token(world, "alice", second) == "success"


async def test_a_client_that_asks_for_another_one_keeps_the_old_one_until_it_is_shown() -> None:
    async with World() as world:
        first = await token_for(world, "alice")
        second = await token_for(world, "alice")
        assert await by_token(world, "alice", second) == "success"
        assert await by_token(world, "alice", first) == "not-authorized"
        third = await token_for(world, "alice")
        assert await by_token(world, "alice", second) == "success"
        assert await by_token(world, "alice", third) == "success"
        assert await by_token(world, "alice", second) == "not-authorized"


async def test_what_a_login_by_token_writes() -> None:
    """Nothing, unless a token takes the place of another one; and then once."""
    async with World() as world:
        writes: list[str] = []
        put_if = world.app.store.put_if  # that all nodes share

        async def counted(table: Any, *args: Any, **more: Any) -> bool:
            writes.append(table.name)
            return bool(await put_if(table, *args, **more))

        world.app.store.put_if = counted  # type: ignore[method-assign]
        token = await token_for(world, "alice")
        assert writes == ["client_tokens"]
        for _ in range(2):
            assert await by_token(world, "alice", token) == "success"
        assert writes == ["client_tokens"]
        world.clock.seconds += DAY
        token = token_in(await fast(await opened(world), "alice", token))
        assert writes == ["client_tokens"] * 2
        world.clock.seconds += DAY
        assert token_in(await fast(await opened(world), "alice", token))
        assert writes == ["client_tokens"] * 3, "taken for the current one, and replaced"


async def test_a_token_that_ends_before_the_one_shown_counts_no_more() -> None:
    async with World() as world:
        first = await token_for(world, "alice")
        assert await by_token(world, "alice", first) == "success"
        for app in world.apps:
            app.tokens.rules = type(app.tokens.rules)(lifetime=DAY)
        second = await token_for(world, "alice")
        assert await by_token(world, "alice", first) == "success"
        assert await by_token(world, "alice", second) == "not-authorized"


@pytest.mark.parametrize("attribute", [" invalidate='true'", " invalidate='1'"])
async def test_a_client_gives_its_token_up(attribute: str) -> None:
    async with World() as world:
        token = await token_for(world, "alice")
        assert await by_token(world, "alice", token, attributes=" invalidate='false'") == "success"
        world.clock.seconds += DAY
        client = await opened(world)
        answer = await fast(client, "alice", token, attributes=attribute, more=BIND)
        assert identifier(answer).startswith(f"{ALICE}/"), "the session goes on"
        assert token_in(answer) == ""
        assert await by_token(world, "alice", token) == "not-authorized"
        assert await rows(world) == []


async def test_it_may_ask_for_another_one_at_that() -> None:
    async with World() as world:
        token = await token_for(world, "alice")
        client = await opened(world)
        answer = await fast(client, "alice", token, attributes=" invalidate='1'", more=wanted())
        assert await by_token(world, "alice", token) == "not-authorized"
        assert await by_token(world, "alice", token_in(answer)) == "success"


async def test_an_account_has_so_many_clients_with_tokens() -> None:
    ids = [PHONE[:-1] + digit for digit in "321"]
    async with World(settings={"auth": {"fast": {"clients_per_account": 2}}}) as world:
        tokens = []
        for id in ids:
            tokens.append(await token_for(world, "alice", id=id))
            world.clock.seconds += 1
        came = [await by_token(world, "alice", token, id=id) for token, id in zip(tokens, ids, strict=True)]
        assert came == ["not-authorized", "success", "success"]
        again = await token_for(world, "alice", id=ids[2])
        assert await by_token(world, "alice", again, id=ids[2]) == "success"
        assert len(await rows(world)) == 2


# --------------------------------------------------------------------------------- revoked


async def test_a_new_password_takes_all_tokens() -> None:
    async with World() as world:
        token = await token_for(world, "alice")
        await world.app.accounts.set_password(ALICE, "secret", keep_sessions=True)
        assert await by_token(world, "alice", token) == "credentials-expired"
        assert await by_token(world, "alice", await token_for(world, "alice")) == "success"


async def test_a_disabled_account_loses_its_tokens() -> None:
    async with World() as world:
        token = await token_for(world, "alice")
        await world.app.accounts.disable(ALICE)
        assert await by_token(world, "alice", token) == "credentials-expired"
        await world.app.accounts.enable(ALICE)
        assert await by_token(world, "alice", token) == "credentials-expired"


async def test_the_next_owner_of_a_name_inherits_none() -> None:
    async with World() as world:
        token = await token_for(world, "alice")
        await world.app.server.remove_account(ALICE)
        assert await rows(world) == []
        await world.app.accounts.create(ALICE, "secret")
        assert await by_token(world, "alice", token) == "not-authorized"


async def test_keys_that_come_later_take_no_token() -> None:
    async with World() as world:
        token = await token_for(world, "alice")
        accounts = world.app.accounts
        found = await accounts._load(ALICE)
        assert found is not None
        accounts._completion._hashes = (*accounts._completion._hashes, "sha512")
        accounts.complete(ALICE, "secret", found._replace(missing=("sha512",)))
        await world.settle()
        assert len((await accounts.info(ALICE)).mechanisms) == 3
        assert await by_token(world, "alice", token) == "success"


# --------------------------------------------------------------------------------- remembered


async def remembered(world: World) -> str:
    """A token that the first node remembers, and would have let in without asking."""
    token = await token_for(world, "alice", node=0)
    assert await by_token(world, "alice", token, node=0) == "success"
    assert world.app.tokens.cached == 1
    return token


async def test_what_is_remembered_lets_in_who_shows_it_and_nobody_else() -> None:
    async with World() as world:
        token = await remembered(world)
        assert await by_token(world, "alice", token, node=0) == "success"
        assert await by_token(world, "alice", token[:-1], node=0) == "not-authorized"
        assert await by_token(world, "alice", token, id=DESK, node=0) == "not-authorized"
        assert await by_token(world, "bob", token, node=0) == "not-authorized"
        world.clock.seconds += 22 * DAY
        assert await by_token(world, "alice", token, node=0) == "credentials-expired"


async def test_a_revocation_is_heard_where_a_token_is_remembered() -> None:
    async with World() as world:
        token = await remembered(world)
        assert await world.apps[-1].tokens.revoke(ALICE, PHONE) == [PHONE]
        await world.settle()
        assert await by_token(world, "alice", token, node=0) == "not-authorized"


async def test_a_token_that_another_took_the_place_of_is_not_remembered() -> None:
    async with World() as world:
        first = await remembered(world)
        second = await token_for(world, "alice", node=len(world.apps) - 1)
        assert await by_token(world, "alice", second, node=len(world.apps) - 1) == "success"
        assert await by_token(world, "alice", first, node=0) == "not-authorized"


async def test_nothing_is_remembered_that_may_be_revoked() -> None:
    async with World() as world:
        token = await remembered(world)
        delete_if = world.app.store.delete_if

        async def unsure(*arguments: Any) -> bool:
            await delete_if(*arguments)
            raise StoreTimeout("nobody knows")

        world.app.store.delete_if = unsure  # type: ignore[method-assign]
        with pytest.raises(StoreTimeout):
            await world.app.tokens.revoke(ALICE, PHONE)
        assert await by_token(world, "alice", token, node=0) == "not-authorized"


async def test_a_revocation_beside_a_look_at_the_row_wins() -> None:
    async with World() as world:
        token = await token_for(world, "alice", node=0)
        get = world.app.store.get

        async def slowly(*arguments: Any) -> Any:
            row = await get(*arguments)
            if row is not None and "basis" in row:
                await world.app.tokens.revoke(ALICE, PHONE)
            return row

        world.app.store.get = slowly  # type: ignore[method-assign]
        assert await by_token(world, "alice", token, node=0) == "success", "it was there when it was read"
        world.app.store.get = get  # type: ignore[method-assign]
        assert await by_token(world, "alice", token, node=0) == "not-authorized"


async def test_what_nobody_would_hear_of_is_not_remembered() -> None:
    async with World() as world:
        token = await remembered(world)
        world.app.accounts.trust(False)
        assert await by_token(world, "alice", token, node=0) == "success"
        await world.app.store.delete(TOKENS, (ALICE,))
        assert await by_token(world, "alice", token, node=0) == "not-authorized"
