"""A Django application whose users watch their own tasks, and no others.

    pip install 'django>=5' /path/to/celery-gateway
    (umask 077 && openssl rand -base64 48 > shop.secret)
    celery-gateway serve --auth auth.toml --allow-origin http://localhost:8000
    celery -A django_tokens:celery worker -E
    python django_tokens.py runserver 8000

Then open http://localhost:8000/. The page loads the JavaScript client from clients/js: build it first.
"""

import os
import sys
import time
from pathlib import Path
from uuid import uuid4

import django
from celery import Celery, Task
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.management.utils import get_random_secret_key
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.template import Context, Engine
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from django.views.static import serve

from celery_gateway import progress, tokens

GATEWAY_URL = os.environ.get("GATEWAY_URL", "http://localhost:8555")
SECRET_FILE = Path(os.environ.get("TOKEN_SECRET_FILE", "shop.secret"))
CLIENT = Path(__file__).parents[2] / "clients" / "js"  # a bundler takes the place of this

settings.configure(
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key(),
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
django.setup()

celery = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "amqp://guest:guest@localhost:5672//"))
celery.conf.task_send_sent_event = True

OWNERS: dict[str, str] = {}
"""Which user started which task. Your application has this in its database."""


@celery.task(bind=True, name="shop.report")
def report(self: Task, pages: int) -> str:
    for page in range(1, pages + 1):
        time.sleep(0.05)
        progress.report(self, page, pages)
    return f"a report of {pages} pages"


@require_POST
def login(request: HttpRequest, user: str) -> HttpResponse:
    """Stand-in for your login: there is no password."""
    request.session["user"] = user
    return redirect("/")


@require_POST
def start(request: HttpRequest) -> HttpResponse:
    user = request.session.get("user")
    if user is None:
        return HttpResponse("Log in first.", status=401)
    task_id = str(uuid4())
    OWNERS[task_id] = user  # before the task is sent, so that the page can ask for its token at once
    report.apply_async(kwargs={"pages": 20}, task_id=task_id)
    return redirect(f"/tasks/{task_id}")


@require_GET
@never_cache
def celery_token(request: HttpRequest) -> HttpResponse:
    """Return a token for one task of the user who is logged in."""
    user, task_id = request.session.get("user"), request.GET.get("task", "")
    if user is None or OWNERS.get(task_id) != user:
        return JsonResponse({"error": "you have no such task"}, status=404)
    token = tokens.sign(
        SECRET_FILE.read_bytes(),
        issuer="https://shop.example",
        subject=user,
        uuid=task_id,
        hide=["traceback"],
        minutes=15,
    )
    return JsonResponse({"token": token})


PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Reports</title>
{% for name in names %}<form method="post" action="/login/{{ name }}">
  <input type="hidden" name="csrfmiddlewaretoken" value="{{ csrf }}"><button>Log in as {{ name }}</button>
</form>{% endfor %}
<form method="post" action="/start">
  <input type="hidden" name="csrfmiddlewaretoken" value="{{ csrf }}"><button>Start a report</button>
</form>
<p><output id="text">{{ user|default:"not logged in" }}</output></p>
{% if task_id %}
{{ task_id|json_script:"task-id" }}{{ gateway_url|json_script:"gateway-url" }}
<script type="importmap">
  { "imports": { "@celery-gateway/client": "/client/dist/index.js",
                 "eventsource-parser": "/client/node_modules/eventsource-parser/dist/index.js" } }
</script>
<script type="module">
  import { connect } from "@celery-gateway/client";
  const value = (id) => JSON.parse(document.getElementById(id).textContent);
  const uuid = value("task-id");

  async function token() { // the client calls it for each connection, and when the token has expired
    const response = await fetch(`/celery-token?task=${uuid}`);
    if (!response.ok) throw new Error(`no token: status ${response.status}`);
    return (await response.json()).token;
  }

  const task = connect({ url: value("gateway-url"), token }).task(uuid);
  task.subscribe((now) => {
    text.value = now ? `${now.state} ${Math.round(100 * (now.progress ?? 0))} %` : task.status;
  });
</script>
{% endif %}
"""


@require_GET
def page(request: HttpRequest, task_id: str = "") -> HttpResponse:
    context = {
        "csrf": get_token(request),
        "gateway_url": GATEWAY_URL,
        "names": ["alice", "bob"],
        "task_id": task_id,
        "user": request.session.get("user"),
    }
    return HttpResponse(Engine().from_string(PAGE).render(Context(context)))


urlpatterns = [
    path("", page),
    path("login/<slug:user>", login),
    path("start", start),
    path("tasks/<uuid:task_id>", page),
    path("celery-token", celery_token),
    path("client/<path:path>", serve, {"document_root": CLIENT}),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
