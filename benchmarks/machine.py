"""The machine of a run, and the versions of all programs and packages in it."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kombu import Connection

from benchmarks.lab import ROOT

PACKAGES = (
    *("uvicorn", "uvloop", "httptools", "websockets", "starlette", "sse-starlette", "aio-pika", "msgspec"),
    *("celery", "kombu"),
)


def machine() -> dict[str, str]:
    """Return the hardware, the system and the load before the run, by name."""
    processor = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "CPU": processor[1] if processor else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory[1]) / (1 << 20):.0f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


def versions(broker_url: str) -> dict[str, str]:
    """Return the versions of the programs that are installed."""
    from celery_gateway import __version__

    found = {
        "celery-gateway": f"{__version__} ({_commit()})",
        "Python": platform.python_version(),
        **{name: _package(name) for name in PACKAGES},
        "RabbitMQ": _broker(broker_url),
        "nginx": _said("nginx/([\\d.]+)", "nginx", "-v"),
        "Nchan": _said("([\\d.]+)[^:]*$", "dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"),
        "nats-server": _said("v([\\d.]+)", "nats-server", "--version"),
        "gcc": _said("([\\d.]+)$", "gcc", "-dumpfullversion"),
    }
    return {name: text for name, text in found.items() if text}


def _commit() -> str:
    commit = _said("(.+)", "git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = _said("(.+)", "git", "-C", str(ROOT), "status", "--porcelain", "--", "gateway")
    return (commit or "no commit") + (" and changes" if changed else "")


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _broker(url: str) -> str:
    with Connection(url) as connection:
        connection.connect()
        properties: dict[str, str] = connection.connection.server_properties
        return properties.get("version", "")


def _said(pattern: str, *args: str) -> str:
    """Return what a pattern's group matches in a program's output; empty if there is no such program."""
    try:
        done = subprocess.run(args, capture_output=True, text=True, timeout=10)
    except OSError:
        return ""
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found and not done.returncode else ""
