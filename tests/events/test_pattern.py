"""Patterns against a matcher that walks through the text by character, and their cost in CPU time."""

import random
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events import pattern as patterns
from celery_gateway.events.pattern import Glob, escape, split, unescape, wildcards
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

SPECIAL = "\\,*?!"
DRAWN = settings(deadline=None, max_examples=tries(400), derandomize=True)


def signs(text: str) -> list[tuple[str, bool]]:
    """The characters of a pattern, each with whether it is literal."""
    read = []
    at = 0
    while at < len(text):
        is_escape = text[at] == "\\" and at + 1 < len(text) and text[at + 1] in SPECIAL
        at += is_escape
        read.append((text[at], is_escape or text[at] not in "*?,"))
        at += 1
    return read


def matches(pattern: str, text: str) -> bool:
    places = {0}
    for character, is_literal in signs(pattern):
        if character == "*" and not is_literal:
            places = set(range(min(places), len(text) + 1))
        else:
            is_any = character == "?" and not is_literal
            places = {at + 1 for at in places if at < len(text) and (is_any or text[at] == character)}
        if not places:
            return False
    return len(text) in places


PIECES = st.sampled_from(
    [
        "a",
        "b",
        "ab",
        "aab" * 5,
        "a" * 33,
        "é😀",
        "a?",
        "?",
        "*",
        "*",
        "**",
        "\\*",
        "\\?",
        "\\\\",
        "\\",
        ",",
        "!",
    ]
)
GLOBS = st.lists(PIECES, max_size=9).map("".join).filter(wildcards)


@st.composite
def globs_and_texts(draw: st.DrawFn) -> tuple[str, str]:
    """Often a text that matches, or almost."""
    glob = draw(GLOBS)
    runs = st.text("ab", max_size=3) | st.sampled_from(["", "a" * 40, "aab" * 12, "é😀"])
    text = "".join(
        character
        if is_literal or character == ","
        else draw(st.sampled_from("abé"))
        if character == "?"
        else draw(runs)
        for character, is_literal in signs(glob)
    )
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(["", "a", "b", "*"])) + text[at + 1 :]
    return glob, text


@pytest.fixture(params=["find", "masks"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """How a piece is searched."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "masks":
            patch.setattr(patterns, "MAX_SEARCH_STEPS", 0)
            patch.setattr(patterns, "SEARCH_STEPS_PER_PIECE", 0)
        yield


@pytest.mark.usefixtures("way")
class TestBothWays:
    @pytest.mark.slow
    @DRAWN
    @given(globs_and_texts())
    def test_a_glob_matches_what_the_reference_matches(self, drawn: tuple[str, str]) -> None:
        glob, text = drawn
        assert Glob.parse(glob).match(text) == matches(glob, text)

    def test_random_globs_of_few_characters(self) -> None:
        choice = random.Random(7)
        matched = 0
        for _ in range(8_000):
            glob = "".join(choice.choices("aab*?*?\\", k=choice.randrange(1, 12)))
            text = "".join(choice.choices("aab*", k=choice.randrange(14)))
            if choice.random() < 0.3:
                part = ("ab" * 20)[: choice.randrange(1, 40)]
                glob, text = glob.replace("a", part), text.replace("a", part)
            if wildcards(glob):
                assert Glob.parse(glob).match(text) == matches(glob, text), (glob, text)
                matched += matches(glob, text)
        assert matched > 500

    def test_pieces_that_occur_almost_everywhere(self) -> None:
        choice = random.Random(8)
        for _ in range(300):
            text = "".join(choice.choices(["a" * 30, "b", "ab" * 9, "aab"], k=20))
            begin = choice.randrange(len(text) - 60)
            piece = list(text[begin : begin + choice.randrange(1, 60)])
            for at in range(0, len(piece), choice.randrange(2, 40)):
                piece[at] = choice.choice("?ab")
            glob = f"*{''.join(piece)}*{text[-choice.randrange(1, 9) :]}"
            assert Glob.parse(glob).match(text) == matches(glob, text), (glob, text)


@pytest.mark.slow
@DRAWN
@given(st.lists(PIECES | st.just(","), max_size=12).map("".join), st.integers(1, 5))
def test_escapes(text: str, max_parts: int) -> None:
    read = signs(text)
    assert unescape(text) == "".join(character for character, _ in read)
    assert unescape(escape(text)) == text
    assert wildcards(text) == sum(character in "*?" and not is_literal for character, is_literal in read)
    parts = split(text, 1_000)
    assert ",".join(parts) == text
    assert len(parts) == 1 + read.count((",", False))
    assert split(text, max_parts) == parts[: max_parts + 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [("a**b", "a*b"), ("a***", "a*"), ("*?", "?*"), ("a*?*?b", "a??*b"), (r"\a*", r"\\a*"), ("a,*", r"a\,*")],
)
def test_equal_globs(one: str, other: str) -> None:
    assert Glob.parse(one) == Glob.parse(other)
    assert hash(Glob.parse(one)) == hash(Glob.parse(other))
    assert Glob.parse(one) != Glob.parse(one + "?")


def test_the_prefix_is_what_every_match_begins_with() -> None:
    assert [Glob.parse(glob).prefix for glob in ("a*b", "a?", "*", "?a", r"\*a*", "ab*c*")] == [
        *("a", "a", "", "", "*a", "ab")
    ]


def cpu_seconds(work: Callable[[], object]) -> float:
    """The shortest of three runs, since the machine is shared."""

    def once() -> float:
        patterns._masks.cache_clear()
        started = time.process_time()
        work()
        return time.process_time() - started

    return min(once() for _ in range(3))


A = "a" * 4096
WORDS = random.Random(1)
BINARY = "".join(WORDS.choices("ab", k=4096))
CHARACTERS = "".join(map(chr, range(0x4E00, 0x4E00 + 4096)))


def every_other(text: str) -> str:
    return "".join(character if at % 2 else "?" for at, character in enumerate(text))


WORST: dict[str, tuple[Callable[[int], str], str]] = {
    "stars": (lambda n: "*a" * 498 + f"*{n}", A),
    "stars that match": (lambda n: "*a" * (499 - n) + "*", A),
    "question marks": (lambda n: "*?" + "a?" * (497 - n) + "b*", A),
    "pieces with question marks": (lambda n: "*" + "a?a*" * (248 - n) + "b*", A),
    "longer pieces with question marks": (lambda n: "*" + "a?a?b*" * (165 - n), "aaaab" * 819),
    "a long piece": (lambda n: "*" + "a" * (400 + n) + "b" + "a" * (596 - n) + "*", A),
    "a long piece that matches": (lambda n: "*" + "a" * (998 - n) + "*", A),
    "a piece with some question marks": (lambda n: "*" + "aaa?" * (248 - n) + "b*", A),
    "question marks only": (lambda n: "*" + "?" * (990 - n) + "b*", A),
    "pieces of 17": (lambda n: "*" + ("a" * 17 + "*") * (54 - n // 2) + "b*", A),
    "pieces of 5": (lambda n: "*" + ("a" * 5 + "*") * (166 - n) + "b*", A),
    "pieces of 16": (lambda n: "*" + "a" * 7 + "b" + "a" * 8 + f"*{n}*", A),
    "escapes": (lambda n: r"*\*" * (332 - n) + "b", "*" * 4096),
    "random text": (lambda n: f"*{BINARY[n : n + 990]}?c*", BINARY),
    "many characters": (lambda n: f"*{CHARACTERS[n * 20 : n * 20 + 980]}?b*", CHARACTERS),
    "many characters, question marks": (
        lambda n: f"*{every_other(CHARACTERS[n * 20 : n * 20 + 990])}*",
        CHARACTERS,
    ),
    "a repeated text": (
        lambda n: f"*{(CHARACTERS[: 40 + n] * 30)[n : n + 980]}b*",
        (CHARACTERS[:90] * 50)[:4096],
    ),
}


@pytest.mark.parametrize(("glob", "text"), WORST.values(), ids=WORST.keys())
def test_the_worst_globs_take_little_cpu_time(glob: Callable[[int], str], text: str) -> None:
    """Measured: 20 ms for 100 globs at most, each of 1,000 characters."""
    texts = [glob(number) for number in range(100)]
    assert all(len(unescape(text)) <= 1_000 for text in texts)
    assert cpu_seconds(lambda: [Glob.parse(text) for text in texts]) < 0.03
    globs = [Glob.parse(text) for text in texts]
    assert cpu_seconds(lambda: [glob.match(text) for glob in globs]) < 0.1


@pytest.mark.parametrize(("glob", "text"), WORST.values(), ids=WORST.keys())
def test_the_cost_of_a_glob_follows_its_cpu_time(glob: Callable[[int], str], text: str) -> None:
    globs = [Glob.parse(glob(number)) for number in range(20)]
    took_seconds = cpu_seconds(lambda: [glob.match(text) for glob in globs])
    assert took_seconds < 0.001 + sum(glob.cost for glob in globs) * 4e-6


def test_what_is_kept_of_a_text_is_bounded() -> None:
    text = CHARACTERS + CHARACTERS
    masks = patterns._Masks(text)
    for size in (1, 2, 3, 16):
        for at in range(0, 4096 - size):
            assert masks[text[at : at + size]] & (1 << at)
    assert len(masks) <= patterns.MAX_MASKS
    for number in range(100):
        Glob.parse(f"*{BINARY[:40]}*").match(f"{number}{BINARY}")
    assert patterns._masks.cache_info().currsize <= 12
