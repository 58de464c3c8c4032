"""Several processes compute what one does."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jaxlm.errors import UsageError, UserError
from jaxlm.parallel.processes import Processes, processes_of, roll_call

ROOT = Path(__file__).parents[2]


def run(processes: int, devices: int) -> Any:
    address = f"127.0.0.1:{free_port()}"
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    command = [sys.executable, "-m", "tests.parallel.two_steps", str(processes)]
    started = [
        subprocess.Popen(
            [*command, str(index), address],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for index in range(processes)
    ]  # fmt: skip
    outputs = []
    try:
        for process in started:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            outputs.append(out)
    finally:
        for process in started:
            process.kill()
    return json.loads(outputs[0].splitlines()[-1])  # gloo prints before


def test_two_processes_of_four_devices_are_one_of_eight() -> None:
    found, wanted = run(2, 4), run(1, 8)
    for ours, its in zip(found, wanted, strict=True):
        assert ours == pytest.approx(its, rel=1e-5)


PLACE = {"JAXLM_PROCESSES": "3", "JAXLM_PROCESS": "1", "JAXLM_COORDINATOR": "[::1]:5000"}


def test_environment_tells_the_place() -> None:
    assert processes_of({"PATH": "/bin"}) is None
    assert processes_of(PLACE) == Processes(3, 1, "::1", 5000, ())
    named = processes_of(PLACE | {"JAXLM_HOSTS": "a,b,c", "JAXLM_COORDINATOR": "a:1"})
    assert named == Processes(3, 1, "a", 1, ("a", "b", "c"))
    assert named.named(2) == "process 2 (c)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JAXLM_COORDINATOR": ""}, "JAXLM_COORDINATOR: not set"),
        ({"JAXLM_PROCESSES": "0"}, "JAXLM_PROCESSES=0: not a number of processes"),
        ({"JAXLM_PROCESS": "3"}, "JAXLM_PROCESS=3: not one of 3 processes; give 0 to 2"),
        ({"JAXLM_PROCESS": "-1"}, "JAXLM_PROCESS=-1: not one of 3"),
        ({"JAXLM_COORDINATOR": "host"}, "JAXLM_COORDINATOR=host: give HOST:PORT"),
        ({"JAXLM_COORDINATOR": "host:65535"}, "JAXLM_COORDINATOR=host:65535: give HOST:PORT"),
        ({"JAXLM_HOSTS": "a,b"}, "JAXLM_HOSTS: 2 names for 3 processes"),
    ],
)
def test_half_a_place_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        processes_of(PLACE | change)


def call_roll(here: dict[int, str], count: int = 3, timeout: float = 60.0) -> list[list[str]]:
    """What each process that is `here` (index: config) is told, as threads of this one."""
    port = free_port()
    places = [Processes(count, k, "127.0.0.1", port, ("a", "b", "c")[:count]) for k in here]

    def told(place: Processes) -> list[str]:
        try:
            roll_call(place, timeout, here[place.index])
        except UserError as error:
            return error.messages
        return []

    with ThreadPoolExecutor(len(here)) as pool:
        return list(pool.map(told, places))


def test_roll_call_ends_when_all_are_there() -> None:
    assert call_roll({0: "x", 1: "x", 2: "x"}) == [[], [], []]


def test_roll_call_names_who_is_missing() -> None:
    missing = "1 of 3 processes did not come within 2 s: process 2 (c); see their logs, or raise "
    assert call_roll({0: "x", 1: "x"}, timeout=2) == [[f"{missing}recovery.start_timeout"]] * 2
    ((alone,),) = call_roll({1: "x"}, timeout=1)
    assert alone.startswith("process 0 (a) did not answer at 127.0.0.1:")


def test_roll_call_finds_another_config() -> None:
    first, second = call_roll({0: "x", 1: "y"}, count=2)
    assert first == second
    assert "has another config than process 0" in first[0]


def test_roll_call_survives_strangers_and_callers_that_die() -> None:
    port = free_port()
    place = Processes(2, 0, "127.0.0.1", port, ())
    with ThreadPoolExecutor(2) as pool:
        taken = pool.submit(roll_call, place, 60.0, "x")
        dying = json.dumps({"process": 1, "of": 2, "host": "h", "config": "x"})
        numbers = ('{"process": 7, "of": 2, "host": "h", "config": "x"}', "[" * 900, "1", '"')
        for line in ("GET / HTTP/1.1", "x" * 5000, "\xff\0", "{}", *numbers):
            with connected(port + 1) as stranger:
                stranger.sendall(f"{line}\n".encode())
        with connected(port + 1) as silent, connected(port + 1) as half:
            half.sendall(dying.encode())
            calling = pool.submit(roll_call, replace(place, index=1), 60.0, "x")
            assert calling.result(60) is None
            assert taken.result(60) is None
            assert silent.recv(1) == b""


def test_roll_call_refuses_one_process_twice() -> None:
    port = free_port()
    place = Processes(3, 0, "127.0.0.1", port, ())
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(roll_call, replace(place, index=k), 60.0, "x") for k in (0, 1, 1)]
        for call in calls:
            with pytest.raises(UserError, match="process 1 was started twice, on"):
                call.result(60)


def connected(port: int) -> socket.socket:
    until = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 30)
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
