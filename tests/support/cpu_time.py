"""Limits of CPU time that fit the machine: relative to a fixed piece of work, measured in the same run."""

import time
from statistics import median

NOMINAL_SECONDS = 0.005
"""The reference on the machine that the limits of the tests were measured on."""
ROUNDS = 5


def _work() -> int:
    numbers = {str(number): number for number in range(20_000)}
    return sum(numbers[text] for text in sorted(numbers))


def reference_seconds() -> float:
    """Return the CPU time of a fixed piece of work on this machine now: the median of some rounds.

    It is measured at each call: what else the machine does also changes what a piece of work costs.
    """
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        _work()
        rounds.append(time.process_time() - started)
    return median(rounds)


def scaled(seconds: float) -> float:
    """Return a limit of CPU time for this machine.

    Args:
        seconds: the limit on a machine that takes ``NOMINAL_SECONDS`` for the reference; a faster machine
            has the same limit.
    """
    return seconds * max(1.0, reference_seconds() / NOMINAL_SECONDS)
