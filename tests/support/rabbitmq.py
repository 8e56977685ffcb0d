"""A private RabbitMQ node for one test run, and the child processes that the tests start.

Rules of this room:
- Nothing of the machine is used or changed: ports are free ones on 127.0.0.1, the node has its own epmd, and
  all its files (database, logs, cookie, configuration) lie in the folder it was given.
- Nothing outlives the test run. A child is the leader of its own session, stopped as a group, and the kernel
  kills it when the thread that started it is gone (util-linux' setpriv), so even a killed pytest leaves none:
  start children from the main thread.
- Waiting means observing a condition until a deadline; nobody sleeps and hopes.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kombu import Connection

POLL_SECONDS = 0.02
DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")


def free_port() -> int:
    """A TCP port of 127.0.0.1 nobody listens on, below those that outgoing connections are given."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    """Polls until the condition holds (True) or the time is up (False)."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def log_tail(log: Path, lines: int, width: int = 300) -> str:
    """The last lines of a log, each cut to `width` characters."""
    if not log.exists():
        return "(no log)"
    return "\n".join(line[:width] for line in log.read_text(errors="replace").split("\n")[-lines:])


class ProcessError(Exception):
    """A child did not do what it was started for; the message ends with the tail of its log."""


class Process:
    """A child process in a session of its own; what it prints goes to the file `log`."""

    def __init__(
        self,
        args: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.args = [str(arg) for arg in args]
        self.log = log
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [*guard, *self.args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while the process runs."""
        return self._popen.poll()

    def wait_until(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Raises ProcessError when the process ends, or the time is up, before it is ready."""
        if wait_for(lambda: self.returncode is not None or ready(), timeout_seconds):
            if self.returncode is None:
                return
            raise self.error(f"ended with exit code {self.returncode} before it was ready")
        raise self.error(f"was not ready after {timeout_seconds:g} s")

    def error(self, what: str) -> ProcessError:
        return ProcessError(f"{' '.join(self.args)}\n{what}; the end of {self.log}:\n{self.tail()}")

    def tail(self, lines: int = 40) -> str:
        return log_tail(self.log, lines)

    def signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            self._popen.send_signal(number)

    def stop(self, timeout_seconds: float = 10.0) -> int:
        """SIGTERM, then SIGKILL to the whole group; the exit code of the process itself."""
        try:
            self.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout_seconds)
        finally:
            code = self.kill()
        return code

    def kill(self) -> int:
        """SIGKILL to the whole group, at once; the exit code."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._popen.wait()


class Shell:
    """An Erlang VM that evaluates expressions on a node. (`rabbitmqctl` starts one for each call.)"""

    _LOOP = """
        Node = '%s',
        Eval = fun(Line) ->
            {ok, Tokens, _} = erl_scan:string(Line),
            {ok, Parsed} = erl_parse:parse_exprs(Tokens),
            {value, Value, _} = rpc:call(Node, erl_eval, exprs, [Parsed, []]),
            {ok, Value}
        end,
        Loop = fun Next() ->
            case io:get_line("") of
                eof -> halt();
                Line ->
                    Result = try Eval(Line) catch _:Reason -> {error, Reason} end,
                    io:format("~0p~n", [Result]),
                    Next()
            end
        end,
        Loop().
    """

    def __init__(self, node: str, env: Mapping[str, str], folder: Path) -> None:
        setpriv = shutil.which("setpriv")
        name = f"shell-{uuid.uuid4().hex[:12]}@localhost"
        self._log = folder / "shell.log"
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                [
                    *([setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []),
                    *("erl", "-hidden", "-noshell", "-sname", name, *env["RABBITMQ_CTL_ERL_ARGS"].split(" ")),
                    *("-eval", " ".join((self._LOOP % node).split())),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(env),
                text=True,
                start_new_session=True,
            )

    def eval(self, expressions: str) -> str:
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._popen.stdin.write(f"{' '.join(expressions.split())}.\n")
        self._popen.stdin.flush()
        result = self._popen.stdout.readline().strip()
        if not result.startswith("{ok,"):
            raise ProcessError(f"{expressions}\n{result or log_tail(self._log, 5)}")
        return result.removeprefix("{ok,").removesuffix("}")

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.communicate()


class RabbitMQ:
    """One node, listening on 127.0.0.1 only. `start()` it, give each test module a vhost, `stop()` it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.node = f"test-{uuid.uuid4().hex[:12]}@localhost"
        self.log = folder / "node.log"
        self._console = folder / "console.log"
        self._server: Process | None = None
        self._epmd: Process | None = None
        self._shell: Shell | None = None
        self._env = self._prepare()

    @classmethod
    def attached(cls, described: Mapping[str, Any]) -> "RabbitMQ":
        """Return a node that another process has started and stops, by its `description`."""
        node = cls.__new__(cls)
        node.folder, node.port, node.node = Path(described["folder"]), described["port"], described["node"]
        node.log = node.folder / "node.log"
        node._env = described["env"]
        node._server = node._epmd = node._shell = None
        return node

    @property
    def description(self) -> dict[str, Any]:
        """What `attached` needs, as JSON."""
        return {"folder": str(self.folder), "port": self.port, "node": self.node, "env": self._env}

    @property
    def url(self) -> str:
        return self.vhost_url("/")

    def vhost_url(self, vhost: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"

    def start(self, timeout_seconds: float = 60.0) -> None:
        """Returns once a client can log in; raises ProcessError with the log's tail when none can."""
        try:
            self._start_epmd()
            # With input "allowed" the script becomes the Erlang VM instead of waiting for it: one process
            # whose pid is known. -noinput is what it would have passed otherwise.
            self._server = Process([_script("rabbitmq-server"), "-noinput"], log=self._console, env=self._env)
            self._server.wait_until(self._accepts_clients, timeout_seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the Erlang VM and its epmd at once: the database is not needed again."""
        self._close_shell()
        for process in (self._server, self._epmd):
            if process is not None:
                process.kill()
        self._server = self._epmd = None

    def restart(self, timeout_seconds: float = 60.0) -> None:
        """The whole node goes down in good order and comes back on the same port with what was durable."""
        with self.down():
            pass

    @contextmanager
    def down(self) -> Iterator[None]:
        """The node is away (connections refused) within the block, and back after it."""
        assert self._server is not None, "the node is not running"
        self._close_shell()
        self._server.stop(timeout_seconds=30)
        self._server = None
        try:
            yield
        finally:
            self.start()

    def stop_app(self) -> None:
        """Closes listeners and connections but keeps the Erlang VM: sooner back than after `down()`."""
        self.ctl("stop_app")

    def start_app(self) -> None:
        self.ctl("start_app")
        assert self._server is not None
        self._server.wait_until(self._accepts_clients, 30)

    def add_vhost(self, name: str) -> str:
        """Make a virtual host that guest may use; return its URL."""
        self.eval(
            f'ok = rabbit_vhost:add(<<"{name}">>, <<"tests">>), '
            f'ok = rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, '
            '<<".*">>, <<".*">>, <<".*">>, <<"tests">>)'
        )
        return self.vhost_url(name)

    def eval(self, expressions: str) -> str:
        """Evaluate Erlang expressions on the node, much quicker than `ctl`.

        Returns:
            The last one's value as an Erlang term.

        Raises:
            ProcessError: they cannot be parsed, or they fail.
        """
        if self._shell is None:
            self._shell = Shell(self.node, self._env, self.folder)
        return self._shell.eval(expressions)

    def _close_shell(self) -> None:
        if self._shell is not None:
            self._shell.close()
            self._shell = None

    def ctl(self, *args: str, timeout_seconds: float = 60.0) -> str:
        """Runs rabbitmqctl on the node; what it prints. Raises ProcessError when it fails."""
        done = subprocess.run(
            [_script("rabbitmqctl"), "--quiet", "--node", self.node, *args],
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )
        if done.returncode:
            raise ProcessError(
                f"rabbitmqctl {' '.join(args)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def tail(self, lines: int = 10) -> str:
        """The end of the node's log, to be shown with a failed test."""
        return log_tail(self.log, lines)

    def _prepare(self) -> dict[str, str]:
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        cookie = folder / ".erlang.cookie"
        cookie.write_text(uuid.uuid4().hex.upper())
        cookie.chmod(0o400)
        (folder / "environment.conf").touch()
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "advanced.config").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "disk_free_limit.absolute = 1MB\n"
            f"log.file = {self.log}\n"
            "log.file.level = info\n"
        )
        # Schedulers that neither spin nor bind to a core: the tests share two.
        light = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))
        }
        return inherited | {
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment.conf"),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_BASE": str(folder),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": str(self.log),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
            "RABBITMQ_PID_FILE": str(folder / "node.pid"),
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ERL_ARGS": "+P 262144 +t 1048576",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{light} {loopback}",
            "RABBITMQ_CTL_ERL_ARGS": f"{light} {loopback}",
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        }

    def _start_epmd(self) -> None:
        """Ours, in the foreground: the one that Erlang would start by itself is a daemon and stays behind."""
        if self._epmd is not None:
            return
        port = int(self._env["ERL_EPMD_PORT"])
        self._epmd = Process(["epmd", "-port", str(port)], log=self._console, env=self._env)
        self._epmd.wait_until(lambda: _listens(port), 10)

    def _accepts_clients(self) -> bool:
        if not _listens(self.port):
            return False
        with suppress(OSError), Connection(self.url, connect_timeout=2) as connection:
            connection.connect()
            return True
        return False


def _script(name: str) -> str:
    """Debian's wrappers in /usr/sbin switch to the user rabbitmq; what they wrap runs as whoever we are."""
    debian = DEBIAN_SCRIPTS / name
    return str(debian) if os.access(debian, os.X_OK) else name


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
