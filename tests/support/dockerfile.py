"""A Dockerfile's steps, run without Docker: what its last stage has is started as a container would be.

Each stage has a folder of its own for its files. While it is built that folder stands in one place, which is
`/` for the paths below ROOTS: so what a venv's scripts begin with is right in the stage they are copied to.
`FROM python:X.Y-slim@…` is a virtual environment of this machine's python X.Y, or of ours where it has none.
Users are not made: such a RUN is noted in `Image.users`. Anything that this module does not know is an error.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOTS = ("build", "opt")
# .dockerignore and its like are for files the user has; what a test run leaves behind is none of them.
UNSEEN = {".git", "node_modules", ".venv", ".venv-lowest"}
_PATH = re.compile(rf"(?<![\w.:/-])/(?=(?:{'|'.join(ROOTS)})(?:/|\b))")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Instruction(NamedTuple):
    """`RUN --mount=… pip …` is ("RUN", {"mount": "…"}, "pip …")."""

    name: str
    flags: dict[str, str]
    value: str


@dataclass
class Image:
    """A stage: its files, and what a container made of it is started with."""

    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    workdir: str = "/"
    user: str = "0"
    exposed: str = ""
    stop_signal: str = "SIGTERM"
    healthcheck: list[str] = field(default_factory=list)
    healthcheck_flags: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


def read(dockerfile: Path) -> list[Instruction]:
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    instructions = []
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        if line.strip():
            name, value = line.split(maxsplit=1)
            flags: dict[str, str] = {}
            while match := re.match(r"--([a-z-]+)=(\S+)\s+", value):
                flags[match[1]] = match[2]
                value = value[match.end() :]
            instructions.append(Instruction(name, flags, value))
    return instructions


def context(root: Path) -> Iterator[str]:
    """The paths of the files that .dockerignore lets through, as Docker does: the last pattern decides."""
    rules = []
    for line in (root / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            glob = line.removeprefix("!")
            text = re.escape(glob).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
            rules.append((re.compile(text.replace(r"\[", "[").replace(r"\]", "]")), line.startswith("!")))
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in UNSEEN]
        for name in files:
            path = Path(folder, name).relative_to(root)
            steps = [str(path), *(str(parent) for parent in path.parents if parent.name)]
            said = [keep for rule, keep in rules if any(rule.fullmatch(step) for step in steps)]
            if not said or said[-1]:
                yield str(path)


class Build:
    """Builds in `folder`, with interpreters by version. `run()`, then `image` and `command(…)`."""

    def __init__(
        self, root: Path, folder: Path, pythons: Mapping[str, str], arguments: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.image = Image()
        self._live = folder / "root"
        self._context = folder / "context"
        self._pythons = pythons
        self._given = dict(arguments or {})
        self._global: dict[str, str] = {}
        self._bases: dict[str, Path] = {}
        self._base = folder
        self._stage: str | None = None
        for path in context(root):
            (self._context / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / path, self._context / path)

    def run(self, dockerfile: Path) -> None:
        for instruction in read(dockerfile):
            getattr(self, f"_{instruction.name.lower()}")(instruction)

    def place(self, path: str) -> Path:
        """Where a path of the image is here."""
        return self._live / (path if path.startswith("/") else f"{self.image.workdir}/{path}").lstrip("/")

    def translate(self, text: str) -> str:
        return _PATH.sub(f"{self._live}/", text)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """A container's; with our own below it, which says how packages are reached."""
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GATEWAY_", "CELERY_", "PYTHON", "VIRTUAL_ENV"))
        }
        path = f"{self._base / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        theirs = {name: self.translate(value) for name, value in self.image.environment.items()}
        return ours | {"PATH": path} | theirs | dict(more or {})

    def command(self, *arguments: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """The arguments with the program as the image's PATH finds it."""
        program = shutil.which(arguments[0], path=self.environment(environment)["PATH"])
        assert program is not None, f"the image has no {arguments[0]}"
        return [program, *arguments[1:]]

    def _arg(self, instruction: Instruction) -> None:
        name, _, default = instruction.value.partition("=")
        value = self._given.get(name, self._global.get(name, "".join(shlex.split(default))))
        if self._stage is None:
            self._global[name] = value
        else:
            self.image.environment[name] = value

    def _from(self, instruction: Instruction) -> None:
        base, _, stage = self._expand(instruction.value, self._global).partition(" AS ")
        if self._stage is not None:
            self._live.rename(self.folder / self._stage)
        self._live.mkdir()
        self._stage = stage or "(last)"
        self.image = Image()
        if base not in self._bases:
            version = re.fullmatch(r"python:(\d+\.\d+)-slim@sha256:[0-9a-f]{64}", base)
            assert version, f"an unknown base image: {base}"
            ours = f"{sys.version_info.major}.{sys.version_info.minor}"
            self._bases[base] = self._environment_of(self._pythons.get(version[1], self._pythons[ours]))
        elif (earlier := self.folder / base).is_dir():
            assert not any(earlier.iterdir()), f"the stage {base} has files of its own"
        self._base = self._bases[self._stage] = self._bases[base]
        self.image.environment["PATH"] = f"{self._base / 'bin'}:/usr/local/bin:/usr/bin:/bin"

    def _environment_of(self, python: str) -> Path:
        place = self.folder / "python"
        subprocess.run([python, "-m", "venv", place], check=True, capture_output=True, timeout=60)
        return place

    def _workdir(self, instruction: Instruction) -> None:
        self.image.workdir = instruction.value
        self.place(instruction.value).mkdir(parents=True, exist_ok=True)

    def _copy(self, instruction: Instruction) -> None:
        assert instruction.flags.keys() <= {"from"}, instruction
        *sources, target = instruction.value.split()
        stage = instruction.flags.get("from")
        origin = self.folder / stage if stage else self._context
        into = self.place(target)
        for source in sources:
            here = origin / source.lstrip("/")
            if here.is_dir():
                shutil.copytree(here, into, symlinks=True, dirs_exist_ok=True)
            else:
                folder = into if target.endswith("/") else into.parent
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(here, into)

    def _run(self, instruction: Instruction) -> None:
        assert instruction.flags.keys() <= {"mount"}, instruction
        if instruction.value.startswith("groupadd "):
            self.image.users.append(instruction.value)
            return
        done = subprocess.run(
            ["sh", "-c", self.translate(instruction.value)],
            cwd=self.place(self.image.workdir),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, f"RUN {instruction.value}\n{done.stdout}{done.stderr}"

    def _env(self, instruction: Instruction) -> None:
        self.image.environment |= self._pairs(instruction)

    def _label(self, instruction: Instruction) -> None:
        self.image.labels |= self._pairs(instruction)

    def _user(self, instruction: Instruction) -> None:
        self.image.user = instruction.value

    def _expose(self, instruction: Instruction) -> None:
        self.image.exposed = instruction.value

    def _stopsignal(self, instruction: Instruction) -> None:
        self.image.stop_signal = instruction.value

    def _healthcheck(self, instruction: Instruction) -> None:
        self.image.healthcheck_flags = instruction.flags
        self.image.healthcheck = json.loads(instruction.value.removeprefix("CMD "))

    def _entrypoint(self, instruction: Instruction) -> None:
        self.image.entrypoint = json.loads(instruction.value)

    def _cmd(self, instruction: Instruction) -> None:
        self.image.command = json.loads(instruction.value)

    def _pairs(self, instruction: Instruction) -> dict[str, str]:
        pairs = (word.partition("=") for word in shlex.split(instruction.value))
        return {name: self._expand(value, self.image.environment) for name, _, value in pairs}

    def _expand(self, text: str, values: Mapping[str, str]) -> str:
        return _VARIABLE.sub(lambda match: values[match[1] or match[2]], text)
