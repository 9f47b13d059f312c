"""What we sign is what JavaScript would write."""

import json
import shutil
import subprocess
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartwire.model.javascript import DEEPEST, stringify

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node: https://nodejs.org/en/download")

NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-50, 50)
KEYS = st.text(max_size=5) | st.integers(-3, 2**33).map(str) | st.sampled_from(["__proto__", "00", "1e3", "٣"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=8),
    max_leaves=30,
)


@needs_node
@settings(max_examples=15, deadline=timedelta(seconds=20))
@given(st.lists(VALUES, min_size=1, max_size=60))
def test_a_value_is_written_as_javascript_writes_it(values: list[Any]) -> None:
    sent = [json.dumps(value).encode() for value in values]
    script = (
        "const lines = require('fs').readFileSync(0, 'utf8').split('\\n');"
        "process.stdout.write(lines.map((line) => JSON.stringify(JSON.parse(line))).join('\\n'));"
    )
    node = subprocess.run(["node", "-e", script], input=b"\n".join(sent), capture_output=True, check=True)
    parsed = [orjson.loads(line) if "\\ud" not in line.decode() else json.loads(line) for line in sent]
    assert node.stdout.split(b"\n") == [stringify(value).encode() for value in parsed]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.25e-7, "1.25e-7"),
        (1e-6, "0.000001"),
        (123456789.125, "123456789.125"),
        (-5e-324, "-5e-324"),
        (2**63, "9223372036854776000"),
        (10**400, "null"),
        (True, "true"),
        ('\ud800 \u2028 \x7f \x0b " / \\', '"\\ud800 \u2028 \x7f \\u000b \\" / \\\\"'),
        ({"b": 1, "10": 2, "9": 3, "01": 4}, '{"9":3,"10":2,"b":1,"01":4}'),
    ],
)
def test_what_javascript_has_its_own_way_with(value: Any, text: str) -> None:
    assert stringify(value) == text


def test_what_is_nested_beyond_measure_is_refused() -> None:
    def nested(levels: int) -> Any:
        return [nested(levels - 1)] if levels else 0

    assert stringify(nested(DEEPEST)) == "[" * DEEPEST + "0" + "]" * DEEPEST
    with pytest.raises(ValueError, match="nested"):
        stringify(nested(DEEPEST + 1))
