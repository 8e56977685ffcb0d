"""A FastAPI application whose users watch their own workflows, and no others.

    pip install fastapi itsdangerous 'uvicorn[standard]' /path/to/celery-gateway
    (umask 077 && openssl rand -base64 48 > shop.secret)
    celery-gateway serve --auth auth.toml --allow-origin http://localhost:8000
    celery -A fastapi_tokens:celery worker -E
    uvicorn fastapi_tokens:app

Then open http://localhost:8000/. The page loads the JavaScript client from clients/js: build it first.
"""

import os
import secrets
import time
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid4

from celery import Celery, group
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.sessions import SessionMiddleware

from celery_gateway import tokens

GATEWAY_URL = os.environ.get("GATEWAY_URL", "http://localhost:8555")
SECRET_FILE = Path(os.environ.get("TOKEN_SECRET_FILE", "shop.secret"))
CLIENT = Path(__file__).parents[2] / "clients" / "js"  # a bundler takes the place of this

celery = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "amqp://guest:guest@localhost:5672//"))
celery.conf.task_send_sent_event = True

app = FastAPI()
app.add_middleware(
    SessionMiddleware,
    secret_key=os.environ.get("SESSION_SECRET") or secrets.token_hex(32),
    same_site="strict",  # no other site can start tasks for a user
)

OWNERS: dict[str, str] = {}
"""Which user started which workflow. Your application has this in its database."""


@celery.task(name="shop.album")
def album(pictures: int) -> None:
    group(resize.s(number) for number in range(pictures)).apply_async()


@celery.task(name="shop.resize")
def resize(number: int) -> str:
    time.sleep(0.05)
    return f"picture-{number}.jpg"


def logged_in(request: Request) -> str:
    """Return the name of the user."""
    if user := request.session.get("user"):
        return str(user)
    raise HTTPException(401, "log in first")


User = Annotated[str, Depends(logged_in)]


@app.post("/login/{user}")
def login(request: Request, user: str) -> RedirectResponse:
    """Stand-in for your login: there is no password."""
    request.session["user"] = user
    return RedirectResponse("/", 303)


@app.post("/start")
def start(user: User) -> RedirectResponse:
    root_id = str(uuid4())
    OWNERS[root_id] = user  # before the task is sent, so that the page can ask for its token at once
    album.apply_async(args=[5], task_id=root_id)
    return RedirectResponse(f"/workflows/{root_id}", 303)


@app.get("/celery-token")
def celery_token(user: User, workflow: UUID) -> JSONResponse:
    """Return a token for one workflow of the user who is logged in: its root and all tasks below it."""
    root_id = str(workflow)
    if OWNERS.get(root_id) != user:
        raise HTTPException(404, "you have no such workflow")
    token = tokens.sign(
        SECRET_FILE.read_bytes(),
        issuer="https://shop.example",
        subject=user,
        root_id=root_id,
        hide=["traceback"],
        minutes=15,
    )
    return JSONResponse({"token": token}, headers={"Cache-Control": "no-store"})


PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Albums</title>
<form method="post" action="/login/alice"><button>Log in as alice</button></form>
<form method="post" action="/login/bob"><button>Log in as bob</button></form>
<form method="post" action="/start"><button>Start an album</button></form>
<progress id="bar" value="0"></progress> <output id="text"></output>
"""

WORKFLOW_PAGE = """
<script type="importmap">
  { "imports": { "@celery-gateway/client": "/client/dist/index.js",
                 "eventsource-parser": "/client/node_modules/eventsource-parser/dist/index.js" } }
</script>
<script type="module">
  import { connect } from "@celery-gateway/client";
  const rootId = location.pathname.split("/").pop();

  async function token() { // the client calls it for each connection, and when the token has expired
    const response = await fetch(`/celery-token?workflow=${rootId}`);
    if (!response.ok) throw new Error(`no token: status ${response.status}`);
    return (await response.json()).token;
  }

  const workflow = connect({ url: "GATEWAY_URL", token }).workflow(rootId);
  workflow.subscribe((flow) => {
    bar.value = flow?.progress ?? 0;
    text.value = flow ? `${flow.ready} of ${flow.total}` : workflow.status;
  });
</script>
""".replace("GATEWAY_URL", GATEWAY_URL)


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return PAGE


@app.get("/workflows/{root_id}", response_class=HTMLResponse)
def workflow_page(root_id: UUID) -> str:
    return PAGE + WORKFLOW_PAGE


app.mount("/client", StaticFiles(directory=CLIENT))
