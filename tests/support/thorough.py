"""How much a test tries. `make fuzz` sets THOROUGH=1; in `make test` a quarter has to do."""

import os

IS_THOROUGH = os.environ.get("THOROUGH") == "1"


def tries(count: int) -> int:
    """Return how many examples, or bodies, to try where `count` is thorough."""
    return count if IS_THOROUGH else -(-count // 4)
