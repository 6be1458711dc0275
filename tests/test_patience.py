"""No test counts on a machine that has nothing else to do: what is to come may take seconds."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENCE, rounds, until

TESTS = Path(__file__).parent
LEAST = 10.0
"""Seconds that whatever is waited for must be given."""

EXCUSE = "# real time:"
"""Begins a remark on the line of what may be shorter, with the reason."""

WAITS = {"timeout": 0, "wait_for": 1, "until": 1, "settimeout": 0, "join": 0, "result": 0}
"""Functions whose argument at that place is how many seconds something may take."""
NAMED = {"timeout", "connect_timeout"}
FAILS = {"pytest.raises(TimeoutError)"}
CLOCKS = {"monotonic", "perf_counter", "time"}


def seconds_of(node: ast.expr | None) -> float | None:
    """A number that stands there as it is."""
    found = node.value if isinstance(node, ast.Constant) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def asks_clock(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Call) and name_of(each) in CLOCKS for each in ast.walk(node))


def is_short(seconds: float | None) -> bool:
    return seconds is not None and 0 < seconds < LEAST


def expected_to_fail(tree: ast.Module) -> set[ast.AST]:
    """Whatever is to run out of time: nothing comes there, and the wait may be short."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and ast.unparse(node.items[0].context_expr) in FAILS
        for inner in ast.walk(node)
    }


def haste(source: str) -> Iterator[int]:
    """The lines on which something that is to come is given too little time."""
    tree, lines = ast.parse(source), source.splitlines()
    failing = expected_to_fail(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr | ast.stmt) or node in failing:
            continue
        excused = any(EXCUSE in line for line in lines[node.lineno - 1 : node.end_lineno])
        if not excused and (is_hasty_wait(node) or is_hasty_claim(node) or is_hasty_loop(node)):
            yield node.lineno


def is_hasty_wait(node: ast.AST) -> bool:
    """It is called with few seconds."""
    if not isinstance(node, ast.Call):
        return False
    place = WAITS.get(name_of(node))
    given = [word.value for word in node.keywords if word.arg in NAMED]
    if place is not None and len(node.args) > place:
        given.append(node.args[place])
    return any(is_short(seconds_of(each)) for each in given)


def is_hasty_claim(node: ast.AST) -> bool:
    """It says that what was done took few seconds."""
    if not isinstance(node, ast.Compare):
        return False
    sides = zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
    return any(
        isinstance(how, ast.Lt | ast.LtE) and asks_clock(left) and is_short(seconds_of(right))
        for left, how, right in sides
    )


def is_hasty_loop(node: ast.AST) -> bool:
    """It looks so many times, and sleeps between, and that makes few seconds."""
    if not isinstance(node, ast.For) or not any(
        isinstance(each, ast.Break | ast.Return) for each in ast.walk(node)
    ):
        return False
    times = node.iter.args[-1] if isinstance(node.iter, ast.Call) and name_of(node.iter) == "range" else None
    count = seconds_of(times)
    sleeps = [
        pause
        for each in ast.walk(node)
        if isinstance(each, ast.Call) and name_of(each) == "sleep" and each.args
        if (pause := seconds_of(each.args[0]))
    ]
    return count is not None and bool(sleeps) and count * sum(sleeps) < LEAST


def test_whatever_is_waited_for_has_time() -> None:
    found = [f"{path}:{line}" for path in TESTS.rglob("*.py") for line in haste(path.read_text())]
    assert sorted(found) == []


HASTY = [
    "asyncio.timeout(5)",
    "asyncio.wait_for(work(), 1.5)",
    "thread.join(3)",
    "socket.create_connection(place, timeout=1)",
    "assert time.monotonic() - begun < 2",
    "assert 0.4 < time.monotonic() - begun < 4",
    "for _ in range(100):\n    if come:\n        break\n    time.sleep(0.01)",
]
PATIENT = [
    "asyncio.timeout(30)",
    "asyncio.wait_for(work(), PATIENCE)",
    "assert time.monotonic() - begun > 2",
    "with pytest.raises(TimeoutError):\n    asyncio.wait_for(work(), 0.2)",
    "asyncio.timeout(5)  # real time: the claim",
    "for _ in range(100):\n    time.sleep(0.01)",
    "' '.join(words)",
]


def test_haste_is_found_and_nothing_else() -> None:
    assert [text for text in (*HASTY, *PATIENT) if [*haste(text)]] == HASTY


@pytest.mark.asyncio
async def test_what_never_happens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patience.PATIENCE", 0.05)
    looks: list[bool] = []
    with pytest.raises(AssertionError, match="never"):
        await until(lambda: bool(looks.append(True)))
    assert len(looks) > 1
    assert [None async for _ in rounds()]
    assert PATIENCE >= LEAST
