"""A Flask application for several tenants. Each sees the reports of its own queue, and nothing else.

    pip install flask /path/to/celery-gateway
    (umask 077 && openssl rand -base64 48 > shop.secret)
    celery-gateway serve --auth auth.toml --allow-origin http://localhost:8000
    celery -A flask_tokens:celery worker -E -Q tenant-acme,tenant-globex
    flask --app flask_tokens run --port 8000

Then open http://localhost:8000/. The page uses EventSource with a session of the gateway, and
needs no package.
"""

import os
import secrets
from pathlib import Path

from celery import Celery
from flask import Flask, Response, abort, jsonify, redirect, render_template_string, session
from werkzeug.wrappers import Response as Redirect

from celery_gateway import tokens

GATEWAY_URL = os.environ.get("GATEWAY_URL", "http://localhost:8555")
SECRET_FILE = Path(os.environ.get("TOKEN_SECRET_FILE", "shop.secret"))
TENANTS = {"alice": "acme", "bob": "globex"}
"""The tenant of each user. Your application has this in its database."""

celery = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "amqp://guest:guest@localhost:5672//"))
celery.conf.task_send_sent_event = True  # only task-sent has the queue: a scope by queue needs it

app = Flask(__name__)
app.config.update(
    SECRET_KEY=os.environ.get("SESSION_SECRET") or secrets.token_hex(32),
    SESSION_COOKIE_SAMESITE="Strict",  # no other site can start tasks for a user
)


@celery.task(name="report.yearly")
def yearly(year: int) -> str:
    return f"the report of {year}"


@celery.task(name="audit.record")
def record(user: str) -> None:
    """Is in the queue of the tenant, too, but its name is not in the scope."""


def tenant() -> str:
    """Return the tenant of the user who is logged in."""
    if session.get("user") not in TENANTS:
        abort(401, "log in first")
    return TENANTS[session["user"]]


@app.post("/login/<user>")
def login(user: str) -> Redirect:
    """Stand-in for your login: there is no password."""
    session["user"] = user
    return redirect("/", 303)


@app.post("/start")
def start() -> tuple[Response, int]:
    queue = f"tenant-{tenant()}"
    record.apply_async(args=[session["user"]], queue=queue)
    return jsonify(id=yearly.apply_async(args=[2026], queue=queue).id), 202


@app.get("/celery-token")
def celery_token() -> Response:
    """Return a token for the reports of the user's tenant."""
    token = tokens.sign(
        SECRET_FILE.read_bytes(),
        issuer="https://shop.example",
        subject=session.get("user"),
        name="report.*",
        queue=f"tenant-{tenant()}",
        hide=["args", "kwargs", "traceback"],
        minutes=15,
    )
    response = jsonify(token=token)
    response.headers["Cache-Control"] = "no-store"
    return response


PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Reports</title>
{% for name in tenants %}
<form method="post" action="/login/{{ name }}"><button>Log in as {{ name }}</button></form>
{% endfor %}
{% if user %}
<button id="start">Start a report</button> <output id="text">connecting …</output>
<ul id="list"></ul>
<script>
  const gateway = {{ gateway_url | tojson }};
  const rows = new Map();

  function show({ uuid, name, state }) {
    if (!uuid) return; // of a worker
    if (!rows.has(uuid)) rows.set(uuid, list.appendChild(document.createElement("li")));
    rows.get(uuid).textContent = `${name}: ${state}`;
  }

  async function connect() {
    try {
      const { token } = await (await fetch("/celery-token")).json();
      // The session of the gateway is a cookie: EventSource cannot send a header.
      const headers = { Authorization: `Bearer ${token}` };
      const done = await fetch(`${gateway}/session`, { method: "POST", credentials: "include", headers });
      if (!done.ok) throw new Error(`no session: status ${done.status}`);
    } catch (error) {
      text.value = error.message;
      return setTimeout(connect, 2000 + 3000 * Math.random());
    }
    const events = new EventSource(`${gateway}/events?snapshot=1`, { withCredentials: true });
    const again = () => (events.close(), setTimeout(connect, 1000 * Math.random()));
    const on = (type, act) => events.addEventListener(type, ({ data }) => act(JSON.parse(data)));
    on("gateway-open", () => (text.value = "live"));
    on("gateway-snapshot", ({ tasks }) => tasks.forEach(show));
    on("message", show);
    on("gateway-gap", again); // events were lost: begin with the current state
    on("gateway-close", ({ reason }) => reason === "expired" && again()); // with another token
    // EventSource does not reconnect after 401, or after a proxy's 502.
    events.onerror = () => events.readyState === EventSource.CLOSED && again();
  }

  start.onclick = () => fetch("/start", { method: "POST" });
  connect();
</script>
{% endif %}
"""


@app.get("/")
def page() -> str:
    return render_template_string(PAGE, gateway_url=GATEWAY_URL, tenants=TENANTS, user=session.get("user"))
