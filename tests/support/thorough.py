"""How much is tried: in `make test` a part, in `make test-thorough`, which sets THOROUGH=1, everything."""

import os
from collections.abc import Iterable
from typing import Any

import pytest

IS_THOROUGH = os.environ.get("THOROUGH") == "1"


def tries(count: int) -> int:
    """Return how many examples, bodies or rounds to try: all, or a quarter of them."""
    return count if IS_THOROUGH else -(-count // 4)


def variants(usual: int, values: Iterable[Any]) -> list[Any]:
    """Return the values of a parameter: the first `usual` ones, and marked as thorough, the others."""
    return [
        value if number < usual else pytest.param(value, marks=pytest.mark.thorough)
        for number, value in enumerate(values)
    ]
