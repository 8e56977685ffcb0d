"""Lock the packages of the image: exact versions, with the hashes of all files that pip may choose.

Run by `make constraints`, which installs the programs into PATH. It writes into deploy/docker:

- `constraints.txt`: the dependencies of the gateway, with the extra `jwt`, which each image has;
- `constraints-redis.txt`: the same, with the extra `redis` as well;
- `build.txt`: the packages that build the wheel of the gateway (`[build-system]` of pyproject.toml).

The locks are for all platforms and for Python 3.11 and newer: requirements of some platforms have markers.
"""

import subprocess
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "docker"


def compile_lock(target: str, *arguments: str) -> None:
    """Resolve to the newest versions that are allowed, and write the lock."""
    subprocess.run(
        [
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--no-config",
            "--upgrade",
            "--universal",
            "--python-version=3.11",
        ]
        + ["--generate-hashes", "--only-binary=:all:", "--custom-compile-command=make constraints"]
        + [*arguments, f"--output-file={FOLDER.relative_to(ROOT) / target}"],
        check=True,
        cwd=ROOT,
    )


if __name__ == "__main__":
    compile_lock("constraints.txt", "pyproject.toml", "--extra=jwt")
    compile_lock(
        "constraints-redis.txt",
        "pyproject.toml",
        "--extra=jwt",
        "--extra=redis",
        "--constraint=deploy/docker/constraints.txt",
    )
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "build-system.in")
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        requirements.write_text("\n".join(project["build-system"]["requires"]))
        compile_lock("build.txt", "--no-annotate", str(requirements))
