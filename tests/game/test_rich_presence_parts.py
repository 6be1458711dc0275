"""Rules of hiding, schemas and the pace of what is shown, by themselves."""

import importlib.util
import json
import math
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmppd.testing import World

ALICE, BOB, CAROL = "alice", "bob", "carol"
GROUPS = ("school", "work")
KEYS = [("all", ""), *(("group", name) for name in GROUPS), *(("friend", name) for name in (ALICE, BOB))]


@pytest.fixture(scope="module")
def parts() -> Any:
    """The modules of the plugin, as the loader brings them."""
    folder = Path(__file__).parents[2] / "plugins" / "game" / "rich_presence"
    found: dict[str, Any] = {}
    for name in ("rules", "schema", "pace"):
        spec = importlib.util.spec_from_file_location(f"parts_of_rich_presence_{name}", folder / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found[name] = module
    return type("Parts", (), found)


CHANGES = st.lists(
    st.tuples(
        st.sets(st.sampled_from(KEYS)),
        st.fixed_dictionaries(
            {name: st.sets(st.sampled_from(GROUPS)).map(sorted).map(tuple) for name in (ALICE, BOB, CAROL)}
        ),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(changes=CHANGES)
def test_since_when_one_is_hidden_never_moves_while_he_is(parts: Any, changes: list[Any]) -> None:
    """Against a model that remembers for each viewer when he saw the account leave."""
    rules: dict[Any, Any] = {}
    groups: Mapping[str, tuple[str, ...]] = dict.fromkeys((ALICE, BOB, CAROL), ())
    left: dict[str, float] = {}
    for at, (wanted, after) in enumerate(changes, 1):
        rules = parts.rules.changed(rules, groups, sorted(wanted), after, float(at))
        groups = after
        assert {key for key, rule in rules.items() if rule.is_on} == wanted
        away = parts.rules.away_of(rules, groups)
        for viewer in (ALICE, BOB, CAROL):
            named = {("all", ""), ("friend", viewer), *(("group", name) for name in after[viewer])}
            if named & wanted:
                left.setdefault(viewer, float(at))
            else:
                left.pop(viewer, None)
            assert away.since(viewer) == left.get(viewer), (viewer, rules)


@given(
    said=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5)), max_size=30),
    window=st.floats(0.1, 2),
)
def test_the_last_state_is_shown_within_a_window_and_none_too_early(
    parts: Any, said: list[tuple[float, int]], window: float
) -> None:
    pace, now, due = parts.pace.Pace(), 0.0, math.inf
    shown: list[tuple[float, int]] = []
    state = -1

    def fire(until: float) -> None:
        nonlocal due
        if due <= until:
            shown.append((due, state))
            pace.shown(due, window)
            due = math.inf

    for pause, value in said:
        fire(now + pause)
        now += pause
        state = value
        wait = pace.said(now, window)
        if wait is None:
            assert due <= now + window + 1e-9
        elif wait:
            assert due == math.inf and wait <= window + 1e-9
            due = now + wait
        else:
            shown.append((now, state))
    fire(math.inf)
    if said:
        assert shown[-1][1] == said[-1][1]
    for (one, _), (other, _) in pairwise(shown):
        assert other - one >= window - 1e-9


def test_every_keyword_of_a_schema(parts: Any) -> None:
    schema = parts.schema.Schema(
        {
            "title": "x",
            "properties": {
                "text": {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^[a-c]+$"},
                "list": {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 2},
                "flag": {"type": "boolean"},
                "ratio": {"type": "number", "minimum": 0, "maximum": 1},
                "what": {"enum": [1, "one", True]},
                "fixed": {"const": "yes"},
                "deep": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            },
        }
    )
    right = {
        "text": "abc",
        "list": [1, 2],
        "flag": False,
        "ratio": 0.5,
        "what": "one",
        "fixed": "yes",
        "deep": {"a": 1},
    }
    schema.check(right)
    wrong = {
        "/text": ["", "abca", "d", 1, None],
        "/list": [[1, 2, 3], {}, "x"],
        "/list/1": [[1, 0], [1, True], [1, 1.5]],
        "/flag": [0, "false"],
        "/ratio": [2, -1, math.nan, math.inf, "0"],
        "/what": [2, "two", False],
        "/fixed": ["no"],
        "/deep/a": [{}, {"a": "1"}],
        "/deep/b": [{"a": 1, "b": 1}],
    }
    for path, values in wrong.items():
        for value in values:
            with pytest.raises(parts.schema.Mistake) as caught:
                schema.check({**right, path.split("/")[1]: value})
            assert caught.value.path == path, value


@pytest.mark.parametrize(
    "given",
    [
        [],
        {"type": "string"},
        {"properties": []},
        {"properties": {"a": {"type": "text"}}},
        {"properties": {"a": {"type": "string", "maximum": 1}}},
        {"properties": {"a": {"type": "string", "pattern": "("}}},
        {"properties": {"a": {"type": "string", "maxLength": -1}}},
        {"properties": {"a": {"type": "array"}}},
        {"properties": {"a": {"enum": []}}},
        {"properties": {"a": {"type": "integer", "by": "me"}}},
        {"properties": {"a": {"type": "object", "properties": {"b": {"type": "integer", "by": "server"}}}}},
        {"required": ["a"]},
        {"additionalProperties": True},
    ],
)
def test_what_is_no_schema(parts: Any, given: Any) -> None:
    with pytest.raises(ValueError, match="is no schema"):
        parts.schema.Schema(given)


@given(
    text=st.text(max_size=60) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
)
def test_any_text_is_read_or_refused(parts: Any, text: str) -> None:
    try:
        value = parts.schema.read(text, 100)
    except parts.schema.Mistake:
        return
    assert parts.schema.read(parts.schema.written(value), 10_000) == value


@pytest.mark.asyncio
async def test_a_schema_that_is_none_is_told_with_its_place() -> None:
    world = World(
        plugins=("rich_presence",), plugin_config={"rich_presence": {"games": {"go": {"says": []}}}}
    )
    with pytest.raises(Exception, match="is no schema"):
        async with world:
            pass
