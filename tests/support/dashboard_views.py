"""The addresses of all views of a gateway, with a task, a workflow and a worker that are there."""

import httpx

VIEWS = (
    "overview",
    "live",
    "tasks",
    "task",
    "workflows",
    "workflow",
    "workers",
    "worker",
    "queues",
    "failures",
)


def addresses(url: str) -> dict[str, str]:
    """Return the address of each view: of a failed task, and of the newest workflow with several tasks."""
    failed = httpx.get(f"{url}/tasks?state=FAILURE&limit=1").json()["tasks"][0]
    workflow = httpx.get(f"{url}/workflows?total>=3&limit=1").json()["workflows"][0]
    worker = httpx.get(f"{url}/workers").json()["workers"][0]
    paths = {
        "overview": "",
        "live": "events",
        "tasks": "tasks",
        "task": f"tasks/{failed['uuid']}",
        "workflows": "workflows",
        "workflow": f"workflows/{workflow['root_id']}",
        "workers": "workers",
        "worker": f"workers/{worker['hostname']}",
        "queues": "queues",
        "failures": "failures",
    }
    return {view: f"{url}/{path}" for view, path in paths.items()}
