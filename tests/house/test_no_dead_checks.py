"""Tests that can fail: no comparison whose result nobody reads, no `raises` that any message would satisfy."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PREDICATES = frozenset({"allclose", "isclose", "array_equal", "array_equiv", "equal", "is_close"})
CATCHERS = frozenset({"raises", "warns", "deprecated_call"})


def called(call: ast.Call) -> str:
    """The last part of what is called: `allclose` for `np.allclose(...)`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def dead_checks(source: str, name: str) -> list[str]:
    """One line per check in `source` that passes whatever the code does."""
    found = []
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and called(node.value) in PREDICATES:
            found.append(f"{name}:{node.lineno}: the result of {called(node.value)}(...) is thrown away; assert it")
        elif isinstance(node, ast.Call) and called(node) in CATCHERS:
            match = next((word.value for word in node.keywords if word.arg == "match"), None)
            if match is None or (isinstance(match, ast.Constant) and not match.value):
                found.append(f"{name}:{node.lineno}: {called(node)}(...) without match= accepts any message")
        elif isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple) and node.test.elts:
            found.append(f"{name}:{node.lineno}: assert on a tuple is always true")
    return found


def test_every_check_can_fail() -> None:
    files = sorted(TESTS.rglob("*.py"))
    assert Path(__file__) in files
    found = [line for f in files for line in dead_checks(f.read_text(encoding="utf-8"), str(f.relative_to(TESTS)))]
    assert found == []


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        ("np.allclose(a, b)", "thrown away"),
        ("torch.equal(a, b)", "thrown away"),
        ("for a in b:\n    isclose(a, 1.0)", "thrown away"),
        ("with pytest.raises(ValueError):\n    f()", "without match="),
        ("with raises(ValueError, match=''):\n    f()", "without match="),
        ("pytest.raises(ValueError, f)", "without match="),
        ("with pytest.warns(UserWarning):\n    f()", "without match="),
        ("assert (a == b, 'message')", "always true"),
    ],
)
def test_a_planted_dead_check_is_found(planted: str, complaint: str) -> None:
    found = dead_checks(planted, "planted.py")
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    "living",
    [
        "assert np.allclose(a, b)",
        "np.testing.assert_allclose(a, b)",
        "same = torch.equal(a, b)",
        "with pytest.raises(ValueError, match='limit 3'):\n    f()",
        "assert not ()",
    ],
)
def test_a_living_check_is_left_alone(living: str) -> None:
    assert dead_checks(living, "living.py") == []
