"""Redaction: hidden fields and secrets are removed from events on arrival."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery.utils.saferepr import saferepr
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celery_gateway.access.redaction import Redactor, parse_hide, parse_redact_keys
from celery_gateway.access.secret_names import ANYWHERE, AS_LAST_WORD, AS_WORDS, SecretNames
from celery_gateway.access.secret_texts import MAX_CHARS, MAX_MATCHES, MAX_NAMES, REDACTED, SecretTexts
from celery_gateway.cli import serve
from celery_gateway.events.fields import NEVER_HIDDEN
from tests.support.cpu_time import scaled
from tests.support.gateway_process import ROOT
from tests.support.state_gateway import StateGateway, known, step
from tests.support.thorough import tries, variants

pytestmark = pytest.mark.unit

Event = dict[str, Any]
redacted = SecretTexts(SecretNames()).redacted

MARK = "QZX"
"""In each secret of the generated values, and in nothing else."""
SECRET_KEYS = (
    *("password", "db_password", "dbPassword", "mysql_pwd", "passwd", "ssh-passphrase", "new_password1"),
    *(
        "client_secret",
        "AWS_SECRET_ACCESS_KEY",
        "secrets",
        "accessToken",
        "csrfmiddlewaretoken",
        "auth_tokens",
    ),
    *("apiKey", "X-Api-Key", "api_key", "APIKEY", "private.key", "Authorization", "Proxy-Authorization"),
    *("credentials", "Set-Cookie", "cookies", "sessionid", "session_key", "basicAuth", "auth", "SMTP_PASS"),
)
OTHER_KEYS = (
    *("token_count", "max_tokens", "author", "secretary", "tokenizer", "xauth", "bypass", "passage", "keys"),
    *("user", "monkey", "design", "sig_type", "password_set", "cookie_policy", "authority", "n", "pass"),
)


# Names.


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_the_value_of_a_name_of_secrets_is_replaced(key: str) -> None:
    event: Event = {
        "type": "task-custom",
        "kwargs": repr({key: "hunter2", "n": 1}),
        "result": f"{key}=hunter2&n=1",
        "exception": f"Login(n=1, {key}='hunter2')",
        "traceback": json.dumps({key: "hunter2", "n": 1}),
        "data": {"list": [{key: "hunter2"}], "n": 1},
    }
    Redactor()(event)
    assert event == {
        "type": "task-custom",
        "kwargs": repr({key: "***", "n": 1}),
        "result": f"{key}=***" if "ookie" in key else f"{key}=***&n=1",
        "exception": f"Login(n=1, {key}='***')",
        "traceback": json.dumps({key: "***", "n": 1}),
        "data": {"list": [{key: "***"}], "n": 1},
    }


@pytest.mark.parametrize("key", OTHER_KEYS)
def test_the_value_of_a_similar_name_stays(key: str) -> None:
    event: Event = {
        "type": "task-custom",
        "kwargs": repr({key: "hunter2"}),
        "result": f"{key}=hunter2&n=1",
        "exception": f"Login(n=1, {key}='hunter2')",
        "traceback": json.dumps({key: "hunter2"}),
        "data": {"list": [{key: "hunter2"}]},
        key: "hunter2",
    }
    before = json.loads(json.dumps(event))
    Redactor()(event)
    assert event == before


def test_further_names_count_as_whole_words() -> None:
    texts = SecretTexts(SecretNames(["iban", "creditCard", "login-token", "contraseña"])).redacted
    assert texts("iban=DE1 customer_iban=DE2 customerIban=DE3 IBAN: DE4") == (
        "iban=*** customer_iban=*** customerIban=*** IBAN: ***"
    )
    assert texts("credit_card=1 creditCard=2 CREDIT-CARD=3 creditcard=4 credit_cards=5") == (
        "credit_card=*** creditCard=*** CREDIT-CARD=*** creditcard=*** credit_cards=5"
    )
    assert texts("{'contraseña': 'a', 'CONTRASEÑA': 'b', 'xiban': 'c', 'ibanity': 'd'}") == (
        "{'contraseña': '***', 'CONTRASEÑA': '***', 'xiban': 'c', 'ibanity': 'd'}"
    )
    # It does not hide the shorter name, which counts in any word.
    assert texts("login_token=1 mylogin_token=2 token=3") == "login_token=*** mylogin_token=*** token=***"


# Texts.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Representations
        ("{'password': 'hunter2', 'n': 1}", "{'password': '***', 'n': 1}"),
        ("{'password': \"it's\", 'n': 1}", "{'password': \"***\", 'n': 1}"),
        ("{'password': b'hunter2', 'n': 1}", "{'password': b'***', 'n': 1}"),
        ("{'password': b'it's', 'n': 1}", "{'password': b'***', 'n': 1}"),
        ("{'pin_secret': 1234, 'n': 1}", "{'pin_secret': '***', 'n': 1}"),
        ("{'secret': Decimal('1.5'), 'n': 1}", "{'secret': '***', 'n': 1}"),
        ("{'secret': <Secret of <User 7>>, 'n': 1}", "{'secret': '***', 'n': 1}"),
        ("{'secrets': ['a', {'b': (1, 2)}, {3}], 'n': 1}", "{'secrets': '***', 'n': 1}"),
        ("{'secrets': ['a]', \"b'\"], 'n': 1}", "{'secrets': '***', 'n': 1}"),
        ("{'password': 'long '\n             'text',\n 'n': 1}", "{'password': '***',\n 'n': 1}"),
        ("Login(user='ann', password='hunter2')", "Login(user='ann', password='***')"),
        # Cut
        ("{'n': 1, 'password': 'hun...', ...}", "{'n': 1, 'password': '***', ...}"),
        ("{'n': 1, 'password': 'hun", "{'n': 1, 'password': '***"),
        ("{'n': 1, 'secrets': ['hun', 'ter", "{'n': 1, 'secrets': '***'"),
        ("{'n': 1, 'password': ...}", "{'n': 1, 'password': '***'}"),
        # JSON, and strings in strings
        ('{"password": "a\\"b", "n": 1}', '{"password": "***", "n": 1}'),
        ('{"token": 7, "n": 1}', '{"token": "***", "n": 1}'),
        ('"{\\"password\\": \\"hunter2\\", \\"n\\": 1}"', '"{\\"password\\": \\"***\\", \\"n\\": 1}"'),
        ('["{\\"secret\\": [1, 2], \\"n\\": 1}"]', '["{\\"secret\\": \\"***\\", \\"n\\": 1}"]'),
        # Pairs and flags
        ("[('password', 'hunter2'), ('n', '1')]", "[('password', '***'), ('n', '1')]"),
        ("[(b'authorization', b'Basic aHVudGVy')]", "[(b'authorization', b'***')]"),
        ("['mysql', '--password', 'hunter2', 'shop']", "['mysql', '--password', '***', 'shop']"),
        ("$ mysql --password hunter2 shop", "$ mysql --password *** shop"),
        ("$ mysql --password=hunter2 shop", "$ mysql --password=*** shop"),
        # Headers
        ("Authorization: Bearer xyz", "Authorization: ***"),
        ("Authorization: Basic aHVu\r\nHost: shop", "Authorization: ***\r\nHost: shop"),
        ("Cookie: a=hunter2; b=hunter2\nHost: shop", "Cookie: ***\nHost: shop"),
        ("sent Bearer xyz to shop", "sent Bearer *** to shop"),
        ("sent Basic aHVudGVyMg== to shop", "sent Basic *** to shop"),
        ("{'h': 'Authorization: Digest a=\"x\", b=\"y\"', 'n': 1}", "{'h': 'Authorization: ***', 'n': 1}"),
        # URLs
        ("https://ann:hunter2@shop/?n=1", "https://ann:***@shop/?n=1"),
        ("redis://:hunter2@shop/0", "redis://:***@shop/0"),
        ("postgres://ann:hun/ter#2@shop:5432/db", "postgres://ann:***@shop:5432/db"),
        ("https://ghp_hunter2@github.com/shop", "https://***@github.com/shop"),
        ("https://shop/?token=hunter2&n=1", "https://shop/?token=***&n=1"),
        ("/login?next=%2F%3Ftoken%3Dhunter2&n=1", "/login?next=%2F%3Ftoken%3D***&n=1"),
        # Messages, source lines and the rest
        ("{'API key': 'hunter2'}, Secret key: hunter2", "{'API key': '***'}, Secret key: ***"),
        ("the password: hunter2 is wrong", "the password: *** is wrong"),
        ("Server=shop;Password=hunter2;Port=1", "Server=shop;Password=***;Port=1"),
        ("token: Bearer hunter2 was refused", "token: *** was refused"),
        ("def login(password: str = 'hunter2'):", "def login(password: str = '***'):"),
        ("if password == 'hunter2':", "if password == '***':"),
        ("os.environ['API_KEY'] = 'hunter2'", "os.environ['API_KEY'] = '***'"),
        ('password = """hunter"2"""', 'password = """***"""'),
        ("token = login(\n  File 'shop.py', line 7", "token = ***\n  File 'shop.py', line 7"),
        ("<Password>hunter2</Password>", "<Password>***</Password>"),
        (
            "private_key: -----BEGIN PRIVATE KEY-----\nMIIE\nvQIB\n-----END PRIVATE KEY-----\nn: 1",
            "private_key: ***\nn: 1",
        ),
    ],
)
def test_secrets_are_found_by_the_names_in_front_of_them(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{'password': None, 'token': True, 'secret': '', 'api_key': [], 'cookies': {}}",
        '{"password": null, "token": false}',
        "KeyError: 'password'",
        "TypeError: login() got an unexpected keyword argument 'password'",
        "['password', 'email', 'name']",
        "invalid token:\n  File 'shop.py', line 7",
        "a bearer token is required; basic authentication is off",
        'WWW-Authenticate: Bearer realm="shop"',
        "https://shop.example/?email=ann@shop.example",
        "amqp://guest@localhost// and ssh://git@github.com",
        "the monkey has a design; max_tokens=7, token_count=8",
    ],
)
def test_texts_without_a_secret_stay(text: str) -> None:
    assert redacted(text) is text


def test_the_work_for_a_text_is_bounded_and_the_rest_is_replaced() -> None:
    texts = SecretTexts(SecretNames())
    many = texts.redacted("x:@:// " * (MAX_MATCHES + 10) + "password=hunter2")
    assert "hunter2" not in many and many.endswith(REDACTED)
    long = texts.redacted("password " + "x" * MAX_CHARS + " secret=hunter2")
    assert "hunter2" not in long and len(long) == MAX_CHARS
    assert texts.redacted(long) == long
    assert texts.redacted("x" * 2 * MAX_CHARS) == "x" * 2 * MAX_CHARS, "no name of a secret"


def test_a_text_with_very_many_secrets_loses_its_rest() -> None:
    text = "password=hunter2 " * (MAX_NAMES + 10) + "and hunter2 without a name"
    assert "hunter2" not in redacted(text)
    assert redacted(redacted(text)) == redacted(text)


# Events.


def test_the_fields_of_celery_are_never_changed_by_their_names() -> None:
    event: Event = {
        "type": "task-sent",
        "uuid": "password=a",
        "root_id": "token=b",
        "name": "shop.password: x",
        "hostname": "secret=w1@host",
        "exchange": "password=a",
        "routing_key": "api_key=a",
        "queue": "secret='a'",
        "args": "('a',)",
    }
    before = dict(event)
    Redactor(keys=["exchange", "routing_key", "args", "uuid"])(event)
    assert event == before


def test_custom_fields_are_redacted_at_any_depth() -> None:
    event: Event = {
        "type": "task-login",
        "uuid": "a",
        "password": "hunter2",
        "token": 7,
        "secret": None,
        "api_key": True,
        "request": {"headers": [["X-Api-Key", "hunter2"], ["Host", "shop"]], "auth": {"user": "ann"}},
        "texts": ["password=hunter2", {"url": "https://ann:hunter2@shop"}],
        "args": [{"password": "hunter2"}],
    }
    Redactor()(event)
    assert event == {
        "type": "task-login",
        "uuid": "a",
        "password": "***",
        "token": "***",
        "secret": None,
        "api_key": True,
        "request": {"headers": [["X-Api-Key", "***"], ["Host", "shop"]], "auth": "***"},
        "texts": ["password=***", {"url": "https://ann:***@shop"}],
        "args": [{"password": "***"}],
    }


def test_hidden_fields_are_removed_and_nothing_is_redacted_when_it_is_off() -> None:
    event: Event = {"type": "task-custom", "uuid": "a", "args": "(1,)", "note": 1, "kwargs": "{'token': 'a'}"}
    Redactor(hide=["args", "note"], redact=False)(event)
    assert event == {"type": "task-custom", "uuid": "a", "kwargs": "{'token': 'a'}"}
    assert not Redactor(redact=False).is_needed
    assert Redactor().is_needed and Redactor(hide=["args"], redact=False).is_needed


@pytest.mark.parametrize("field", sorted(NEVER_HIDDEN))
def test_fields_that_identify_events_cannot_be_hidden(field: str) -> None:
    with pytest.raises(ValueError, match=f"'{field}' cannot be hidden"):
        parse_hide(["args", field])
    with pytest.raises(ValueError, match="cannot be hidden"):
        Redactor(hide=[field])


def test_names_may_be_separated_by_commas() -> None:
    assert parse_hide(["args, kwargs", "result", "args"]) == ("args", "kwargs", "result")
    assert parse_hide(["args,", "kwargs"]) == ("args", "kwargs")
    assert parse_redact_keys(["iban,card_number", "x-pin"]) == ("iban", "card_number", "x-pin")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["iban,,pin"], "a name is empty"),
        ([""], "a name is empty"),
        (["iban=DE1"], "a name contains '='"),
        (["*_pin"], r"a name contains '\*'"),
        (["card number"], "a name contains ' '"),
        (["12"], "has no letter"),
        (["x" * 61], "61 characters; at most 60"),
    ],
)
def test_a_malformed_name_is_refused_without_its_value(values: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse_redact_keys(values)
    assert "DE1" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hide", "args,uuid"], "Invalid value for '--hide': 'uuid' cannot be hidden"),
        (["--hide", "args,,kwargs"], "Invalid value for '--hide': a field is empty"),
        (["--redact-key", "pin=1234"], "Invalid value for '--redact-key': a name contains '='"),
    ],
)
def test_the_command_refuses_malformed_names(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(serve.serve, arguments)
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert message in text and "1234" not in text


async def test_hidden_fields_and_secrets_never_reach_the_state() -> None:
    """Also the attempts of a task, of which the state keeps the exceptions."""
    gateway = StateGateway(redact=Redactor(hide=["exception"]))
    gateway.put(
        known("a", kwargs="{'password': 'hunter2'}", retries=0),
        step("started", "a"),
        step("retried", "a", exception="hidden-1", traceback="password='hunter2'"),
        step("received", "a", retries=1),
        step("started", "a"),
        step("failed", "a", exception="hidden-2", traceback="password='hunter2'"),
    )
    texts = [
        (await gateway.request(path)).text
        for path in ("/tasks", "/tasks/a", "/tasks?fields=attempts,exception", "/workflows/a")
    ]
    assert '"state":"FAILURE"' in texts[1].replace(" ", "")
    assert "password='***'" in texts[1]
    for text in texts:
        assert "hidden-" not in text and "hunter2" not in text


# The page of the docs.

PAGE = (ROOT / "docs/redaction.md").read_text("utf-8")


def test_the_examples_of_the_page_are_true() -> None:
    rows = re.findall(
        r"(?m)^\| `([^`]+)`[^|]* \| `([^`]+)` \|$", PAGE.partition("| in a text | becomes |")[2]
    )
    assert len(rows) == 10
    for text, expected in rows:
        assert redacted(text) == expected


def test_the_page_lists_all_names_and_all_fields_that_cannot_be_hidden() -> None:
    table = PAGE.partition("| words | as in |")[2].partition("\n\n")[0]
    listed = {
        name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row[: row.rfind(" | ")])
    }
    names = {*ANYWHERE, *AS_WORDS, AS_LAST_WORD}
    plurals = set(re.findall(r"`([^`]+)`", PAGE.partition("Also the plurals")[2].partition(".")[0]))
    assert plurals == {name for name in names if name.endswith("s") and name[:-1] in names}
    assert names - plurals <= listed <= names, (names - plurals - listed, listed - names)
    assert ", ".join(f"`{name}`" for name in sorted(NEVER_HIDDEN)) in PAGE.replace("\n ", "")


# Properties.

_secret_texts = st.lists(
    st.sampled_from(
        ["'", '"', "\\", " ", "\n", "@", ":", ",", "{", "]", ")", "é", "&", "=", "...", "\\'", "<"]
    ),
    min_size=1,
    max_size=4,
).map(lambda between: "".join(f"{MARK}{each}" for each in [*between, ""]))
_secrets = st.recursive(
    _secret_texts | _secret_texts.map(str.encode) | st.integers(777_700_000, 777_799_999),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner, min_size=1)
        | st.frozensets(_secret_texts, min_size=1, max_size=2)
    ),
    max_leaves=4,
)
_plain_texts = st.text(alphabet="xyz '\"\\{}[]():=,\n.é&@-<>", max_size=12)
_plain = st.recursive(
    _plain_texts | st.integers(0, 999) | st.none() | st.booleans() | _plain_texts.map(str.encode),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.sampled_from(OTHER_KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)
_tidy = st.recursive(
    st.text(alphabet="xyz éab", max_size=8) | st.integers(0, 999) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["user", "n", "max_tokens"]), inner, max_size=3)
    ),
    max_leaves=4,
)
_mixed = st.recursive(
    st.dictionaries(st.sampled_from(SECRET_KEYS), _secrets, min_size=1, max_size=2),
    lambda inner: (
        st.tuples(_tidy, inner).map(list)
        | st.tuples(inner, _tidy)
        | st.tuples(inner, _tidy).map(lambda pair: {"user": pair[0], "n": pair[1]})
        | st.tuples(inner, _tidy, inner).map(lambda three: {"n": three[0], "user": three[1], "x": three[2]})
    ),
    max_leaves=3,
)


def _json(value: Any) -> str:
    return json.dumps(
        value,
        default=lambda other: sorted(map(str, other)) if isinstance(other, frozenset) else other.decode(),
    )


FORMS: dict[str, Callable[[Any], str]] = {
    "repr": repr,
    "saferepr": lambda value: saferepr(value, 1_024),
    "short saferepr": lambda value: saferepr(value, 60),
    "JSON": _json,
    "JSON in repr": lambda value: repr(_json(value)),
    "JSON in JSON": lambda value: json.dumps({"body": _json(value)}),
    "repr in JSON": lambda value: json.dumps([repr(value)]),
    "exception": lambda value: repr(ValueError("refused", value)),
    "text of an exception": lambda value: repr(ValueError(f"refused {value!r}")),
    "traceback": lambda value: f'  File "a.py", line 1\n    login(x)\nValueError: refused {value!r}\n',
    "call": lambda value: f"shop.login(1, data={value!r})",
}


@settings(max_examples=tries(400), deadline=None)
@given(value=_mixed, form=st.sampled_from(sorted(FORMS)), cut=st.none() | st.floats(0, 1), dots=st.booleans())
@example(value={"password": "QZX\\'QZX"}, form="saferepr", cut=None, dots=False)
@example(value={"password": b"QZX'QZX"}, form="saferepr", cut=None, dots=False)
@example(value={"password": [b"QZX'QZX", "QZX\\"]}, form="saferepr", cut=None, dots=False)
def test_no_secret_survives(value: Any, form: str, cut: float | None, dots: bool) -> None:
    text = FORMS[form](value)
    if cut is not None:
        text = text[: int(len(text) * cut)] + ("..." if dots else "")
    after = redacted(text)
    assert MARK not in after and "7777" not in after, (text, after)
    assert redacted(after) == after
    event = {"type": "task-custom", "result": text, "note": [text]}
    Redactor()(event)
    assert event["result"] == after and event["note"] == [after]


@settings(max_examples=tries(200), deadline=None)
@given(value=_plain, form=st.sampled_from(sorted(FORMS)))
def test_texts_without_names_of_secrets_are_unchanged(value: Any, form: str) -> None:
    try:
        text = FORMS[form](value)
    except RecursionError:  # of saferepr
        return
    assert redacted(text) is text or redacted(text) == text


@settings(max_examples=tries(300), deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(
            [
                *(
                    "password",
                    "token",
                    "auth",
                    "pass",
                    "bearer ",
                    "basic ",
                    "://",
                    "@",
                    "--",
                    "cookie",
                    "İ",
                    "é",
                ),
                *(
                    "=",
                    ":",
                    ": ",
                    " ",
                    "\n",
                    ",",
                    ", ",
                    "'",
                    '"',
                    "\\",
                    "b'",
                    "(",
                    ")",
                    "[",
                    "]",
                    "{",
                    "}",
                    "<",
                ),
                *(
                    ">",
                    "&",
                    ";",
                    "%3D",
                    "%27",
                    "***",
                    "None",
                    "x",
                    "7",
                    "...",
                    "-----BEGIN",
                    "-----END A-----",
                ),
            ]
        )
        | st.text(max_size=3),
        max_size=30,
    )
)
def test_any_text_stays_valid_and_is_redacted_once(pieces: list[str]) -> None:
    text = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    after = redacted(text)
    after.encode()
    assert redacted(after) == after, (text, after)


@settings(max_examples=tries(200), deadline=None)
@given(value=_mixed)
def test_no_secret_of_a_custom_field_survives(value: Any) -> None:
    event = {"type": "task-custom", "data": json.loads(_json(value))}
    Redactor()(event)
    assert MARK not in json.dumps(event) and "7777" not in json.dumps(event)
    once = json.loads(json.dumps(event))
    Redactor()(event)
    assert event == once


# Time.

MEGABYTE = 1_000_000
UNITS = (
    *("'", '"', "[", "{", "(", "<", "\\", "-", "=", "://", ":@://", "{'a': ['b'], "),
    *(
        "password=",
        "password=x ",
        "password='",
        "password: b'x",
        "token=f(b'x\n",
        "password ",
        "--password x ",
    ),
    *(
        "('password', b'x",
        "('password', 'x', ",
        "'password', ",
        "bearer x ",
        "password>",
        'cookie: a="',
        "auth=",
    ),
    *(
        "secret=[",
        "secret=<",
        "\\'secret\\': \\'",
        "password: str | x = ",
        "private_key: -----BEGIN ",
        "İtoken=x ",
    ),
)


def _cpu_seconds(text: str) -> float:
    started = time.process_time()
    redacted(text)
    return time.process_time() - started


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("begin", variants(1, ["", "password='x' @ ", "token=f("]))
def test_the_time_is_linear_in_the_length(unit: str, begin: str) -> None:
    size = tries(MEGABYTE)
    text = begin + unit * (size // len(unit))
    half = begin + unit * (size // len(unit) // 2)
    took, half_took = (min(_cpu_seconds(each) for _ in range(2)) for each in (text, half))
    assert took < scaled(0.5 * size / MEGABYTE), f"{took:.3f} s"
    assert took < 4 * half_took + scaled(0.02), f"{took:.3f} s, half of it {half_took:.3f} s"


def _corpus() -> list[Event]:
    events: list[Event] = []
    for line in (ROOT / "tests/corpus/celery-5.7.0.jsonl").read_text().splitlines():
        body = json.loads(json.loads(line)["body"])
        events += body if isinstance(body, list) else [body]
    return events


def test_events_of_celery_without_secrets_stay_and_cost_little() -> None:
    events = [event for event in _corpus() if event.get("args") != "('http://x/secret',)"]
    before = json.dumps(events)
    redact = Redactor()
    took: list[float] = []
    for _ in range(20):
        started = time.process_time()
        for event in events:
            redact(event)
        took.append((time.process_time() - started) / len(events))
    assert json.dumps(events) == before
    assert min(took) < scaled(3e-6), f"{min(took) * 1e6:.2f} µs an event"
