"""deploy/: what its files promise, against the code and against what reads such files.

There is no Docker, no cluster and no running systemd here. The image's steps are run without one
(tests/support/dockerfile.py), and what it starts is started as compose.yaml says; the manifests are held
against the schemas of Kubernetes and of Compose; the unit is read by systemd's own tools, and its process is
put under its filters of system calls (tests/support/sandbox.py).
"""

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from celery_gateway import __version__
from celery_gateway.access import access_file
from celery_gateway.cli.serve import serve
from celery_gateway.http.allowed_hosts import Policy
from celery_gateway.http.server import DRAIN_SECONDS
from celery_gateway.settings import DEFAULTS
from tests.support import dockerfile, locks, pythons
from tests.support.once import once
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import Process, free_port
from tests.support.sandbox import LIBRARY, directives
from tests.support.stream_client import NdjsonStream

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
LOCK = DEPLOY / "docker" / "constraints.txt"
UNIT = DEPLOY / "systemd" / "celery-gateway.service"
ENVIRONMENT_FILE = DEPLOY / "systemd" / "celery-gateway.env"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE = DEPLOY / "compose.yaml"
COMPOSE_SHARED_LOG = DEPLOY / "compose.shared-log.yaml"
COMPOSE_BROKER = "amqp://guest:guest@rabbitmq:5672//"

# What systemd 252 says of the unit is 1.1; the option takes tenths.
EXPOSURE_TENTHS = 11
# preStop's sleep action is there, without a feature gate, from this version on.
KUBERNETES_VERSIONS = ("1.30", kubernetes_validate.latest_version())
# What closing all connections may take beyond the time that streams are given.
CLOSING_SECONDS = 1

SETTINGS = {
    variable: option
    for option in serve.params
    for variable in ([option.envvar] if isinstance(option.envvar, str) else option.envvar or [])
}
"""The environment variables of `celery-gateway serve`, each with its option."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml, with what YAML's anchors bring in."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return loaded


def manifests(text: str) -> dict[str, dict[str, Any]]:
    """The documents of a stream of manifests by their kind."""
    documents = [document for document in yaml.safe_load_all(text) if document]
    by_kind = {document["kind"]: document for document in documents}
    assert len(by_kind) == len(documents)
    return by_kind


def base() -> dict[str, dict[str, Any]]:
    names = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())["resources"]
    return manifests("\n---\n".join((KUBERNETES / "base" / name).read_text() for name in names))


def seconds(text: str | int) -> int:
    """Of Docker's and systemd's `15s` and `15`."""
    return int(str(text).removesuffix("s"))


def taken_by_serve(values: dict[str, str]) -> None:
    """Each variable is one that `serve` reads, with a value that it takes."""
    for name, value in values.items():
        assert name in SETTINGS, f"serve has no {name}"
        SETTINGS[name].type_cast_value(None, [value] if SETTINGS[name].multiple else value)


# The image, and what compose.yaml starts.


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> dockerfile.Build:
    """The Dockerfile's last stage, on the Python that it asks for where this machine has that."""

    def make(place: Path) -> None:
        build = dockerfile.Build(ROOT, place, pythons.found())
        build.run(DOCKERFILE)
        (place / "build.pickle").write_bytes(pickle.dumps(build))

    made = once(tmp_path_factory, "image", make)
    build: dockerfile.Build = pickle.loads((made / "build.pickle").read_bytes())
    return build


class Container:
    """A service of compose.yaml as a process: the image's files, the service's command and environment.

    What is not as in compose.yaml: the broker's address, the port (through `environment`), and where volumes
    and /tmp are.
    """

    def __init__(
        self,
        name: str,
        image: dockerfile.Build,
        broker: str,
        folder: Path,
        environment: dict[str, str] | None = None,
    ) -> None:
        service = services()[name]
        assert service["build"] == {"context": "..", "dockerfile": "deploy/docker/Dockerfile"}
        places = {}
        for volume in service.get("volumes", []):
            source, target, _ = volume.split(":")
            places[target] = str((DEPLOY / source).resolve())
        if "tmpfs" in service:
            places[service["tmpfs"]] = str(folder / name)
            (folder / name).mkdir()

        def translate(text: str) -> str:
            if places:  # all at once: what a place is called may be another's target
                targets = "|".join(map(re.escape, places))
                text = re.sub(rf"(?<!\w)({targets})(?=/|$)", lambda found: places[found[1]], text)
            return text.replace(COMPOSE_BROKER, broker)

        own = {key: translate(value) for key, value in service["environment"].items()}
        assert broker in own.values(), "compose.yaml names another broker"
        arguments = service.get("entrypoint", image.image.entrypoint)
        arguments = arguments + service.get("command", [] if "entrypoint" in service else image.image.command)
        self.environment = image.environment(own | (environment or {}))
        self.log = folder / f"{name}.log"
        self._arguments = image.command(*map(translate, arguments))
        self._folder = (
            Path(translate(service["working_dir"])) if "working_dir" in service else image.place("/")
        )
        self.process: Process | None = None

    def start(self) -> Process:
        self.process = Process(self._arguments, log=self.log, env=self.environment, cwd=self._folder)
        return self.process

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


@pytest.fixture
def container(image: dockerfile.Build, broker: str, tmp_path: Path) -> Iterator[Any]:
    """`container(name)`: a started service; all are ended with the test."""
    with ExitStack() as started:

        def start(name: str, **environment: str) -> Container:
            one = Container(name, image, broker, tmp_path, environment)
            started.callback(one.kill)
            one.start()
            return one

        yield start


def answers(url: str, code: int = 200) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == code
    except httpx.TransportError:
        return False


def health(image: dockerfile.Build, environment: dict[str, str]) -> int:
    """The exit code of the image's health check, run as Docker does in a container of this environment.

    Docker takes one that does not end in time for unhealthy, as well.
    """
    timeout_seconds = seconds(image.image.healthcheck_flags["timeout"])
    command = image.command(*image.image.healthcheck)
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, timeout=timeout_seconds
        ).returncode
    except subprocess.TimeoutExpired:
        return 1


@pytest.mark.timeout(300)
def test_the_image_serves_is_healthy_and_drains(
    image: dockerfile.Build, container: Any, broker: str, publisher: Publisher
) -> None:
    port = free_port()
    gateway = container("gateway", GATEWAY_PORT=str(port))
    url = f"http://127.0.0.1:{port}"
    gateway.process.wait_until(lambda: answers(f"{url}/readyz"), 60)
    assert health(image, gateway.environment) == 0

    with NdjsonStream(url, {"name": "image.walk"}) as client:
        publisher.send(walk("image.walk"))
        client.until(lambda events: any(event["state"] == "SUCCESS" for event in events))

        gateway.process.signal(signal.SIGSTOP)
        assert health(image, gateway.environment) != 0, "it answers nobody, and is found healthy"
        gateway.process.signal(signal.SIGCONT)
        assert health(image, gateway.environment) == 0

        told_at = time.monotonic()
        assert image.image.stop_signal == "SIGTERM"
        code = gateway.process.stop(seconds(services()["gateway"]["stop_grace_period"]))
        assert time.monotonic() - told_at < DRAIN_SECONDS + CLOSING_SECONDS
        client.until(lambda events: events[-1]["type"] == "gateway-close")
    assert code == 0
    assert health(image, gateway.environment) != 0, "it is gone, and is found healthy"


@pytest.mark.timeout(300)
def test_the_sample_of_compose_is_seen_through_its_gateway(
    container: Any, broker: str, tmp_path: Path
) -> None:
    port = free_port()
    gateway = container("gateway", GATEWAY_PORT=str(port))
    url = f"http://127.0.0.1:{port}"
    gateway.process.wait_until(lambda: answers(f"{url}/readyz"), 60)
    with NdjsonStream(url, {"name": "photos.*"}) as client:
        for name in ("worker", "beat"):
            container(name)

        def is_whole(events: list[dict[str, Any]]) -> bool:
            """An album from its coming to its page, with progress and a retry, and a failure."""
            seen = {(event["name"], event["type"]) for event in events}
            return seen >= {
                ("photos.receive_album", "task-sent"),
                ("photos.receive_album", "task-succeeded"),
                ("photos.resize", "task-progress"),
                ("photos.resize", "task-succeeded"),
                ("photos.make_page", "task-retried"),
                ("photos.make_page", "task-succeeded"),
                ("photos.read_card", "task-failed"),
            }

        events = client.until(is_whole, 90)
    root = next(event["root_id"] for event in events if event["name"] == "photos.make_page")
    workflow = httpx.get(f"{url}/workflows/{root}").json()
    assert [task["name"] for task in workflow["tasks"]] == ["photos.receive_album"]
    assert workflow["total"] >= 5  # it, three pictures at least, the page


def test_what_the_image_says_of_itself_is_so(image: dockerfile.Build) -> None:
    made = image.image
    assert made.labels["org.opencontainers.image.version"] == __version__
    assert made.exposed == str(DEFAULTS.port)
    assert f"'GATEWAY_PORT', '{DEFAULTS.port}'" in made.healthcheck[-1]
    number, _, group = made.user.partition(":")
    assert number.isdigit() and int(number) > 0 and group == number  # Kubernetes believes a number only
    (users,) = made.users
    assert f"groupadd --gid {group} " in users and f"useradd --uid {number} " in users
    installed = {path.name for path in image.place("/opt/celery-gateway/bin").iterdir()}
    assert {"celery-gateway", "celery", "python"} <= installed and "pip" not in installed
    assert not any(image.place("/").glob("build")), "the image has more than it runs"


def test_the_image_has_the_versions_of_its_lock(image: dockerfile.Build) -> None:
    pinned = {f"{name.replace('-', '_')}=={pin.version}" for name, pin in locks.read(LOCK).items()}
    (packages,) = image.place("/opt/celery-gateway").glob("lib/python*/site-packages")
    folders = {
        path.name.removesuffix(".dist-info").replace("-", "==", 1) for path in packages.glob("*.dist-info")
    }
    installed = {name.lower() for name in folders if not name.startswith("celery_gateway")}
    assert {"uvicorn", "celery", "aio_pika"} <= {name.partition("==")[0] for name in installed}
    assert installed <= pinned


def test_pip_refuses_a_file_that_is_not_of_the_lock(image: dockerfile.Build, tmp_path: Path) -> None:
    """The step that installs the packages, with a lock that has other hashes."""
    step = next(i.value for i in dockerfile.read(DOCKERFILE) if "constraints${EXTRAS" in i.value)
    (tmp_path / "constraints.txt").write_text("vine==5.1.0 --hash=sha256:" + "0" * 64)
    done = subprocess.run(
        ["sh", "-c", image.translate(step) + " --dry-run --ignore-installed --no-cache-dir"],
        cwd=tmp_path,
        env=image.environment({"EXTRAS": ""}),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode != 0 and "DO NOT MATCH THE HASHES" in done.stderr, done.stderr


def test_the_health_check_does_not_take_a_service_for_a_port(image: dockerfile.Build) -> None:
    """As Kubernetes sets it for a Service named gateway: the gateway then listens on its default port."""
    (code,) = (part for part in image.image.healthcheck if "http.client" in part)
    assert f"if port.isdigit() else {DEFAULTS.port}" in code


def test_an_extra_chooses_its_lock(image: dockerfile.Build) -> None:
    """With --build-arg EXTRAS=redis; pip is not asked again."""
    step = next(i.value for i in dockerfile.read(DOCKERFILE) if "constraints${EXTRAS" in i.value)
    (name,) = re.findall(r'--requirement ("[^"]*")', step)
    for extras, lock in (("", LOCK), ("redis", LOCK.with_name("constraints-redis.txt"))):
        done = subprocess.run(
            ["sh", "-c", f"echo {name}"], env={"EXTRAS": extras}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == lock.name and lock.exists()
    (copied,) = (
        i.value for i in dockerfile.read(DOCKERFILE) if i.name == "COPY" and "constraints" in i.value
    )
    assert copied.split()[:-1] == ["deploy/docker/constraints.txt", "deploy/docker/constraints-redis.txt"]


def test_the_builder_is_sent_nothing_but_what_the_image_is_made_of(tmp_path: Path) -> None:
    sent = set(dockerfile.context(ROOT))
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "gateway/celery_gateway/py.typed",
        "gateway/celery_gateway/http/dashboard_files/app.js",
    } <= sent
    for name in ("build.txt", "constraints.txt", "constraints-redis.txt"):
        sent.remove(f"deploy/docker/{name}")
    assert {path.split("/")[0] for path in sent} == {"pyproject.toml", "README.md", "LICENSE", "gateway"}
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    for path in (
        ".env",
        "deploy/kubernetes/example/broker.env",
        "gateway/celery_gateway/__pycache__/a.pyc",
        "gateway/celery_gateway/a.pyc",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert list(dockerfile.context(tmp_path)) == []


# compose.yaml


@pytest.mark.parametrize("file", [COMPOSE, COMPOSE_SHARED_LOG], ids=lambda file: file.name)
def test_compose_has_the_form_of_the_compose_specification(file: Path) -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", file],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_compose_names_is_there() -> None:
    described = services()
    for name, service in described.items():
        assert set(service.get("depends_on", {})) <= set(described), name
        for volume in service.get("volumes", []):
            assert (DEPLOY / volume.split(":")[0]).is_dir(), f"{name}: {volume}"
        if "build" in service:
            assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
            assert (ROOT / service["build"]["dockerfile"]) == DOCKERFILE
            assert "image" not in service, "services of one tag are built at once, which fails"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is published to the network"
    assert described["gateway"]["ports"] == [f"127.0.0.1:{DEFAULTS.port}:{DEFAULTS.port}"]
    assert "healthcheck" in described["rabbitmq"]  # the others wait for it
    taken_by_serve(described["gateway"]["environment"])
    assert seconds(described["gateway"]["stop_grace_period"]) > DRAIN_SECONDS + CLOSING_SECONDS


def test_two_gateways_of_compose_share_a_log() -> None:
    document = yaml.safe_load(COMPOSE_SHARED_LOG.read_text())
    described = document["services"]
    gateways = [described["gateway"], described["gateway-2"]]
    for gateway in gateways:
        single = services()["gateway"]
        environment = dict(gateway["environment"])
        taken_by_serve(environment)
        assert environment["GATEWAY_LOG"] == "rabbitmq"
        assert environment["GATEWAY_BROKER"] == COMPOSE_BROKER
        assert set(environment["GATEWAY_ALLOW_HOST"].split()) == {"gateway", "gateway-2"} <= set(described)
        for name in single.keys() - {"environment", "ports"}:
            assert gateway[name] == single[name], f"{name} is not as in compose.yaml"
    ports = [gateway["ports"] for gateway in gateways]
    assert ports == [[f"127.0.0.1:{DEFAULTS.port + n}:{DEFAULTS.port}"] for n in range(2)]
    for name in described.keys() - {"gateway", "gateway-2"}:
        assert described[name]["extends"] == {"file": COMPOSE.name, "service": name}
        assert name in services() and "image" not in described[name]
    (volume,) = described["rabbitmq"]["volumes"]  # without it, the log ends with the container
    assert volume.split(":")[0] in document["volumes"]


# The systemd unit


@needs_systemd
@pytest.mark.timeout(300)
def test_systemd_finds_no_fault_with_the_unit(image: dockerfile.Build, tmp_path: Path) -> None:
    # Only the program's place is another: verify wants it to be there.
    program = directives(UNIT)["ExecStart"][0].split()[0]
    assert program == "/opt/celery-gateway/bin/celery-gateway"
    copied = tmp_path / UNIT.name
    copied.write_text(UNIT.read_text().replace(program, str(image.place(program))))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copied], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout + done.stderr == ""


@needs_systemd
def test_the_unit_is_as_confined_as_the_readme_says() -> None:
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={EXPOSURE_TENTHS}",
            "--no-pager",
            UNIT,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{EXPOSURE_TENTHS / 10:.1f}" in (DEPLOY / "README.md").read_text()


def test_the_unit_leaves_the_gateway_what_it_needs() -> None:
    said = directives(UNIT)
    assert said["EnvironmentFile"] == ["/etc/celery-gateway/celery-gateway.env"]
    assert seconds(said["TimeoutStopSec"][0]) > DRAIN_SECONDS + CLOSING_SECONDS
    assert int(said["LimitNOFILE"][0]) > 10_000
    # Lines that are comments now are there to be used: they are held against the code, too.
    lines = [line.lstrip("#") for line in ENVIRONMENT_FILE.read_text().splitlines()]
    values = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    assert "GATEWAY_BROKER" in values
    taken_by_serve(values)


@needs_systemd
@pytest.mark.timeout(300)
def test_the_gateway_works_under_the_units_filters(
    image: dockerfile.Build, broker: str, publisher: Publisher, tmp_path: Path
) -> None:
    """As the unit starts it, under what the unit allows of system calls: events come in, streams go out."""
    pytest.importorskip("ctypes").CDLL(LIBRARY)
    program, *arguments = directives(UNIT)["ExecStart"][0].split()
    port = free_port()
    process = Process(
        [sys.executable, "-m", "tests.support.sandbox", UNIT, image.place(program), *arguments],
        log=tmp_path / "confined.log",
        env={"GATEWAY_BROKER": broker, "GATEWAY_PORT": str(port), "PATH": os.environ["PATH"]},
        cwd=ROOT,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        process.wait_until(lambda: answers(f"{url}/readyz"), 60)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
        with NdjsonStream(url, {"name": "unit.walk"}) as client:
            publisher.send(walk("unit.walk"))
            client.until(lambda events: any(event["state"] == "SUCCESS" for event in events))
            assert "celery_gateway_events_total" in httpx.get(f"{url}/metrics").text
            assert process.stop() == 0
            client.until(lambda events: events[-1]["type"] == "gateway-close")
    finally:
        process.kill()


# Kubernetes


def assert_valid(documents: dict[str, dict[str, Any]]) -> None:
    for document in documents.values():
        for version in KUBERNETES_VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_the_base_has_the_form_that_kubernetes_asks_for() -> None:
    documents = base()
    assert_valid(documents)
    labels = documents["Deployment"]["spec"]["selector"]["matchLabels"]
    pod = documents["Deployment"]["spec"]["template"]
    assert labels == pod["metadata"]["labels"]
    assert labels == pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]
    assert labels == documents["Service"]["spec"]["selector"]
    assert labels == documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    scaled = documents["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert scaled == {
        "apiVersion": documents["Deployment"]["apiVersion"],
        "kind": "Deployment",
        "name": documents["Deployment"]["metadata"]["name"],
    }
    files = {path.name for path in (KUBERNETES / "base").iterdir()}
    listed = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())["resources"]
    assert files == {*listed, "kustomization.yaml"}


@needs_kubectl
def test_the_example_becomes_what_kubernetes_asks_for(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    example = tmp_path / "kubernetes" / "example"
    for name in ("broker.env", "auth.toml"):
        shutil.copy(example / f"{name}.example", example / name)
    access_file.read(example / "auth.toml")
    done = subprocess.run(["kubectl", "kustomize", example], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    documents = manifests(done.stdout)
    assert_valid(documents)
    assert set(documents) == {*base(), "Namespace", "Secret", "Ingress"}

    (container,) = documents["Deployment"]["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    secret = variables["GATEWAY_BROKER"]["valueFrom"]["secretKeyRef"]
    assert secret["name"] == documents["Secret"]["metadata"]["name"]
    assert secret["key"] in documents["Secret"]["data"]
    (volume,) = documents["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] == documents["Secret"]["metadata"]["name"]
    assert {item["key"] for item in volume["secret"]["items"]} <= documents["Secret"]["data"].keys()
    (mount,) = container["volumeMounts"]
    (item,) = volume["secret"]["items"]
    assert variables["GATEWAY_AUTH"]["value"] == f"{mount['mountPath']}/{item['path']}"
    assert container["image"].endswith(f":{__version__}")
    (rule,) = documents["Ingress"]["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert_allowed(variables, rule["host"])
    service, namespace = backend["name"], documents["Namespace"]["metadata"]["name"]
    for name in (service, f"{service}.{namespace}", f"{service}.{namespace}.svc.cluster.local"):
        assert_allowed(variables, name)
    assert backend["name"] == documents["Service"]["metadata"]["name"]
    assert backend["port"]["name"] in {port["name"] for port in documents["Service"]["spec"]["ports"]}


@needs_kubectl
def test_pods_with_one_log_need_no_affinity(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    example = tmp_path / "kubernetes" / "example"
    for name in ("broker.env", "auth.toml"):
        shutil.copy(example / f"{name}.example", example / name)
    file = example / "kustomization.yaml"
    text = file.read_text()
    for line in ("components:", "  - ../shared-log"):
        assert f"# {line}\n" in text
        text = text.replace(f"# {line}\n", f"{line}\n")
    file.write_text(text)
    done = subprocess.run(["kubectl", "kustomize", example], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    documents = manifests(done.stdout)
    assert_valid(documents)
    assert "sessionAffinity" not in documents["Service"]["spec"]
    annotations = documents["Ingress"]["metadata"]["annotations"]
    assert not [name for name in annotations if "affinity" in name or "cookie" in name]
    assert "nginx.ingress.kubernetes.io/proxy-buffering" in annotations
    (container,) = documents["Deployment"]["spec"]["template"]["spec"]["containers"]
    values = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    taken_by_serve(values)
    assert values["GATEWAY_LOG"] == "rabbitmq"
    assert documents["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 2
    assert documents["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def assert_allowed(variables: dict[str, dict[str, str]], host: str) -> None:
    """A gateway with this environment takes requests for a host."""
    policy = Policy(
        bind="0.0.0.0",
        public_url=variables["GATEWAY_PUBLIC_URL"]["value"],
        allow_hosts=variables["GATEWAY_ALLOW_HOST"]["value"].split(),
    )
    assert policy.allows_host(host) and not policy.allows_host("evil.example")


def test_the_deployment_starts_what_the_image_has(image: dockerfile.Build) -> None:
    spec = base()["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert "command" not in container and "args" not in container  # the image's own, which binds to 0.0.0.0
    assert "--host 0.0.0.0" in " ".join(image.image.command)
    assert (
        f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}" == image.image.user
    )
    (port,) = container["ports"]
    assert port == {"name": "http", "containerPort": DEFAULTS.port}
    for variable in container["env"]:
        assert variable["name"] in SETTINGS
    # Without it, a Service called "gateway" would be read as the setting GATEWAY_PORT.
    assert spec["enableServiceLinks"] is False and "GATEWAY_PORT" in SETTINGS


def test_a_pod_has_time_to_say_goodbye() -> None:
    spec = base()["Deployment"]["spec"]["template"]["spec"]
    sleeps = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > sleeps + DRAIN_SECONDS + CLOSING_SECONDS


def test_the_pod_keeps_to_the_restricted_profile() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    documents = base()
    spec = documents["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert all(volume.keys() == {"name", "secret"} for volume in spec["volumes"])
    assert spec["automountServiceAccountToken"] is False
    assert documents["ServiceAccount"]["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == documents["ServiceAccount"]["metadata"]["name"]


@pytest.mark.timeout(300)
def test_the_probes_ask_what_the_gateway_answers(container: Any) -> None:
    template = base()["Deployment"]["spec"]["template"]
    (described,) = template["spec"]["containers"]
    port = free_port()
    gateway = container("gateway", GATEWAY_PORT=str(port))
    url = f"http://127.0.0.1:{port}"
    gateway.process.wait_until(lambda: answers(f"{url}/readyz"), 60)
    probes = {
        name: described[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    for name, probe in probes.items():
        assert answers(url + probe["path"]), name
        assert probe["port"] == described["ports"][0]["name"]
    metrics = template["metadata"]["annotations"]
    assert metrics["prometheus.io/port"] == str(described["ports"][0]["containerPort"])
    assert "celery_gateway_" in httpx.get(url + metrics["prometheus.io/path"]).text


@pytest.mark.timeout(300)
def test_a_broker_that_is_away_makes_a_pod_unready_and_no_more(container: Any) -> None:
    (described,) = base()["Deployment"]["spec"]["template"]["spec"]["containers"]
    port, nobody = free_port(), free_port()
    gateway = container("gateway", GATEWAY_PORT=str(port), GATEWAY_BROKER=f"amqp://127.0.0.1:{nobody}//")
    url = f"http://127.0.0.1:{port}"
    gateway.process.wait_until(lambda: answers(url + described["startupProbe"]["httpGet"]["path"]), 60)
    assert answers(url + described["readinessProbe"]["httpGet"]["path"], 503)
    assert answers(url + described["livenessProbe"]["httpGet"]["path"])


# What is downloaded


DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
OWN_IMAGES = {"celery-gateway"}
"""Built from this repository: whoever deploys it names the registry and the tag or digest."""


def test_images_are_pinned_by_digest() -> None:
    stages: set[str] = set()
    for instruction in dockerfile.read(DOCKERFILE):
        if instruction.name == "FROM":
            image, _, stage = instruction.value.partition(" AS ")
            assert image in stages or DIGEST.search(image), instruction.value
            stages.add(stage)
        if (source := instruction.flags.get("from")) is not None:
            assert source in stages or DIGEST.search(source), source
    images = [service["image"] for service in services().values() if "image" in service]
    for path in KUBERNETES.rglob("*.yaml"):
        images += re.findall(r"(?m)^\s*(?:- )?image:\s*(\S+)", path.read_text())
    assert len(images) >= 2
    for image in images:
        assert image in OWN_IMAGES or DIGEST.search(image), f"{image} is not pinned: write NAME:TAG@sha256:…"


def test_actions_are_pinned_by_commit() -> None:
    used = 0
    for path in (ROOT / ".github" / "workflows").iterdir():
        text = path.read_text()
        yaml.safe_load(text)
        for reference, comment in re.findall(r"(?m)\buses:\s*(\S+)[ \t]*(.*)$", text):
            used += 1
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", reference), f"{path.name}: {reference}"
            assert re.fullmatch(r"# v\d+\.\d+\.\d+", comment), f"{path.name}: {reference} # which version?"
        for image in re.findall(r"(?m)^\s*(?:image|container):[ \t]+(\S+)", text):
            assert DIGEST.search(image), f"{path.name}: {image}"
    assert used >= 5


def test_the_workflow_has_no_rights_but_to_read() -> None:
    for path in (ROOT / ".github" / "workflows").iterdir():
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            assert "permissions" not in job
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False


def test_what_is_pinned_is_renewed() -> None:
    """Dependabot proposes newer digests, commits and npm packages, for the folders that have such pins."""
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    seen = {(update["package-ecosystem"], update["directory"]) for update in updates}
    assert seen == {
        ("github-actions", "/"),
        ("docker", "/deploy/docker"),
        ("docker-compose", "/deploy"),
        ("npm", "/clients/js"),
        ("npm", "/clients/dashboard"),
    }
    for _, folder in seen:
        assert (ROOT / folder.lstrip("/")).is_dir()


# What is said of it


def test_every_path_that_is_named_is_there() -> None:
    texts = [
        DEPLOY / "README.md",
        *(path for path in DEPLOY.rglob("*") if path.suffix in {".yaml", ".service"}),
    ]
    for text in [*texts, DOCKERFILE, ENVIRONMENT_FILE]:
        for path in re.findall(r"(?<![\w/])deploy/[\w./-]*\w", text.read_text()):
            there = ROOT / path
            assert there.exists() or there.with_name(f"{there.name}.example").exists(), f"{text}: {path}"
    for link in re.findall(r"\]\(([^):#]+)", (DEPLOY / "README.md").read_text()):
        assert (DEPLOY / link).exists(), link
