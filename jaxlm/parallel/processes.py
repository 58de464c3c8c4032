"""Several processes that train one model: who they are, how they meet, what only the first does.

The launch scripts tell each process its place in four variables of the environment:

    JAXLM_PROCESSES      how many there are; not set: one
    JAXLM_PROCESS        which one this is, from 0
    JAXLM_COORDINATOR    HOST:PORT of process 0, where JAX's service listens; PORT + 1 must be free
                         as well, for the roll call
    JAXLM_HOSTS          names of the hosts in the order of the processes, with commas; not needed,
                         but names those that are missing
"""

import atexit
import itertools
import json
import secrets
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# JAX has no public way to the store of its coordination service, nor to the index of a process
# before there are devices.
from jax._src.distributed import global_state

from jaxlm.errors import UsageError, UserError

VARIABLES = ("JAXLM_PROCESSES", "JAXLM_PROCESS", "JAXLM_COORDINATOR")
HEARTBEAT_SECONDS = 60
"""After which a silent process counts as dead, and JAX ends the others."""
LARGEST_REPORT, LARGEST_ANSWER = 1 << 10, 1 << 16  # bytes of a line of the roll call
MOST_NAMED = 20  # missing processes
GRACE_SECONDS = 10.0
FILE_SECONDS = 90.0
"""Until a file of another host is seen: NFS keeps what it knows of a folder for up to 60 s."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and which of them this is."""

    count: int
    index: int
    host: str
    """Of process 0."""
    port: int
    hosts: tuple[str, ...]
    """Of every process; empty where they are not known."""

    def named(self, index: int) -> str:
        return f"process {index} ({self.hosts[index] if self.hosts else 'host not known'})"


def processes_of(environment: Mapping[str, str]) -> Processes | None:
    """What the environment says; None: this process is alone. Raises UsageError for half of it."""
    values = [environment.get(name, "") for name in VARIABLES]
    if not any(values):
        return None
    if missing := [name for name, value in zip(VARIABLES, values, strict=True) if not value]:
        raise UsageError(f"{missing[0]}: not set; set all of {', '.join(VARIABLES)}, or none")
    numbers = [int(value) if value.isdecimal() else -1 for value in values[:2]]
    count, index = numbers
    if count < 1:
        raise UsageError(f"JAXLM_PROCESSES={values[0]}: not a number of processes; give 1 or more")
    if not 0 <= index < count:
        raise UsageError(
            f"JAXLM_PROCESS={values[1]}: not one of {count} processes; give 0 to {count - 1}"
        )
    host, _, port = values[2].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65535:
        raise UsageError(f"JAXLM_COORDINATOR={values[2]}: give HOST:PORT, a port of 1 to 65534")
    hosts = tuple(filter(None, environment.get("JAXLM_HOSTS", "").split(",")))
    if hosts and len(hosts) != count:
        raise UsageError(
            f"JAXLM_HOSTS: {len(hosts)} names for {count} processes; give one a process"
        )
    return Processes(count, index, host.strip("[]"), int(port), hosts)


@contextmanager
def joined(processes: Processes | None, timeout: float, config: str) -> Iterator[None]:
    """All processes of the run, met and known to JAX; nothing for one that is alone.

    To be entered before JAX makes its devices. timeout: seconds to wait for the others; config:
    what must be the same everywhere. Raises UserError that names the processes that did not come. A
    process that fails leaves at once, so that the others do.
    """
    if processes is None or processes.count == 1:
        yield
        return
    roll_call(processes, timeout, config)
    # signals are the training loop's; JAX's service would take SIGTERM for itself
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"{_bracketed(processes.host)}:{processes.port}",
        processes.count,
        processes.index,
        cluster_detection_method="deactivate",
        initialization_timeout=max(60, round(timeout)),
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
    try:
        yield
    except SystemExit:
        raise  # all of them were stopped, and leave together
    except BaseException:
        # it would wait for the others, who may wait for this one
        atexit.unregister(jax.distributed.shutdown)
        raise


def several() -> bool:
    """Whether there are other processes."""
    return global_state.num_processes > 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return global_state.process_id == 0


_count = itertools.count()


def first_does[T](task: str, work: Callable[[], T]) -> T:
    """`work` done by process 0; the others wait, and get its result, which is plain JSON data.

    All processes must call it, in the same order. Raises UserError in the others where it fails.
    """
    if not several():
        return work()
    client, key = global_state.client, f"jaxlm/{next(_count)}/{task}"
    assert client is not None
    if is_first():
        try:
            result = work()
        except BaseException:
            client.key_value_set(key, json.dumps({"failed": True}))
            raise
        client.key_value_set(key, json.dumps({"result": result}))
        return result
    answer = json.loads(_wait_for_value(client, key))
    if "failed" in answer:
        raise UserError(f"{task}: process 0 failed; its log says why")
    value: T = answer["result"]
    return value


def _wait_for_value(client: Any, key: str) -> str:
    while True:
        try:
            # short, so that signals are heard
            return str(client.blocking_key_value_get(key, 2000))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise UserError("process 0 is gone; its log says why") from error


def share_folder(folder: Path) -> None:
    """See to it that all processes see the same folder. Raises UserError in one that does not."""
    if not several():
        return
    file = folder / ".processes"

    def mark() -> str:
        token = f"{socket.gethostname()} {secrets.token_hex(8)}"
        file.write_text(token)
        return token

    token = first_does("workdir", mark)

    def seen() -> bool:
        return file.is_file() and file.read_bytes()[:LARGEST_REPORT] == token.encode()

    if not _until(seen, FILE_SECONDS):
        raise UserError(
            f"{folder}: on {socket.gethostname()} this is not the folder that process 0 on "
            f"{token.split()[0]} writes to; give a workdir that all hosts share"
        )


def wait_for_file(path: Path) -> None:
    """Wait until what process 0 has made is seen here. Raises UserError when it is not."""
    if several() and not _until(path.exists, FILE_SECONDS):
        raise UserError(
            f"{path}: made by process 0, but not seen on {socket.gethostname()}; give a workdir "
            "that all hosts share"
        )


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def largest(value: int) -> jax.Array:
    """The largest value that a process gave, int32 on all devices; every process must ask.

    Works on the mesh that is set; nothing is waited for until it is read.
    """
    mesh = jax.sharding.get_mesh()
    split = jax.NamedSharding(mesh, jax.P(mesh.axis_names))
    own = np.array([value], np.int32)
    return _largest(jax.make_array_from_callback((mesh.size,), split, lambda index: own))


_largest = jax.jit(jnp.max)


def roll_call(processes: Processes, timeout: float, config: str) -> None:
    """Return when every process has called, at process 0, on the port above the coordinator's.

    JAX's own wait does not say who is missing. A call is one line of JSON, and so is the answer:
    what is wrong, none when all are there. Raises UserError, with the same words in all that came.
    """
    if processes.index == 0:
        problems = _take_calls(processes, timeout, config)
    else:
        problems = _call(processes, timeout, config)
    if problems:
        raise UserError(problems)


def _take_calls(processes: Processes, timeout: float, config: str) -> list[str]:
    """Process 0: wait for the calls of the others, answer them all; returns what is wrong."""
    until = time.monotonic() + timeout
    names = {0: socket.gethostname()}
    callers: dict[int, socket.socket] = {}
    called: list[socket.socket] = []
    problems: list[str] = []
    with selectors.DefaultSelector() as selector, _listen(processes) as server:
        selector.register(server, selectors.EVENT_READ, bytearray())

        def drop(connection: socket.socket) -> None:
            selector.unregister(connection)
            connection.close()
            for index in [i for i, caller in callers.items() if caller is connection]:
                del callers[index]  # it died, and may call again

        def receive(connection: socket.socket, heard: bytearray) -> None:
            try:
                piece = connection.recv(LARGEST_REPORT)
            except OSError:
                piece = b""
            heard += piece
            if not piece or len(heard) > LARGEST_REPORT:
                drop(connection)
            elif heard.endswith(b"\n"):
                call = _parsed(bytes(heard), processes.count)
                if call is None:
                    drop(connection)  # a stranger
                    return
                index, host, its_config = call
                called.append(connection)
                if index in callers:
                    problems.append(
                        f"process {index} was started twice, on {names[index]} and on {host}; give "
                        "each a JAXLM_PROCESS of its own"
                    )
                elif its_config != config:
                    problems.append(
                        f"process {index} on {host} has another config than process 0; give all "
                        "the same file and the same KEY=VALUE"
                    )
                names[index], callers[index] = host, connection

        while len(callers) < processes.count - 1 and not problems:
            left = until - time.monotonic()
            if left <= 0:
                problems.append(_missing(processes, {0, *callers}, timeout))
                break
            for key, _ in selector.select(left):
                if key.fileobj is server:
                    connection, _ = server.accept()
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_READ, bytearray())
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    receive(key.fileobj, key.data)
        answer = json.dumps(problems)[:LARGEST_ANSWER].encode() + b"\n"
        for key in list(selector.get_map().values()):
            if key.fileobj is not server:
                assert isinstance(key.fileobj, socket.socket)
                with key.fileobj as connection:
                    if connection in called:
                        connection.settimeout(GRACE_SECONDS)
                        with suppress(OSError):  # gone since
                            connection.sendall(answer)
    return problems


def _missing(processes: Processes, here: set[int], timeout: float) -> str:
    missing = [index for index in range(processes.count) if index not in here]
    names = ", ".join(map(processes.named, missing[:MOST_NAMED]))
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    return (
        f"{len(missing)} of {processes.count} processes did not come within {timeout:g} s: "
        f"{names}{more}; see their logs, or raise recovery.start_timeout"
    )


def _parsed(line: bytes, count: int) -> tuple[int, str, str] | None:
    """Index, host and config of a call; None for what is none."""
    try:
        match json.loads(line):
            case {"process": int(index), "of": int(of), "host": str(host), "config": str(config)}:
                return (index, host, config) if 0 < index < count == of else None
    except ValueError:
        pass
    return None


def _call(processes: Processes, timeout: float, config: str) -> list[str]:
    """Every process but 0: call process 0 until it answers; returns what it says is wrong."""
    until = time.monotonic() + timeout
    call = {
        "process": processes.index, "of": processes.count, "host": socket.gethostname(),
        "config": config,
    }  # fmt: skip
    address = (processes.host, processes.port + 1)
    while True:
        left = until - time.monotonic()
        if left <= 0:
            return [
                f"{processes.named(0)} did not answer at {processes.host}:{address[1]} within "
                f"{timeout:g} s; see its log and whether this port is open between the hosts"
            ]
        try:
            with socket.create_connection(address, min(left, GRACE_SECONDS)) as connection:
                connection.sendall(json.dumps(call).encode() + b"\n")
                connection.settimeout(timeout + GRACE_SECONDS)
                with connection.makefile("rb") as file:
                    answer = json.loads(file.readline(LARGEST_ANSWER + 1))
            return [str(problem) for problem in answer]
        except (OSError, ValueError):
            time.sleep(0.5)  # it has not begun to listen, or died and may come again


def _listen(processes: Processes) -> socket.socket:
    port = processes.port + 1
    try:
        if processes.host in ("127.0.0.1", "localhost"):
            return socket.create_server(("127.0.0.1", port))
        # others know the host by a name or address that it need not know itself
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"{processes.host}:{port}: cannot listen here for the other processes "
            f"({error.strerror}); give a JAXLM_COORDINATOR of this host with two free ports"
        ) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
