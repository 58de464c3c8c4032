"""A real server on this machine as the judge: cache, budget, rate, retries, bad answers."""

import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jaxlm.config.classifiers import Http
from jaxlm.corpus.classify.endpoint import Endpoint, retry_after
from jaxlm.errors import UserError


class Server(ThreadingHTTPServer):
    """Scores a text by its length; `script` holds other answers for the first calls."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.script: list[tuple[int, bytes, dict[str, str]]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls.append(asked)
        self.server.headers.append(dict(self.headers))
        status, headers = 200, dict[str, str]()
        if self.server.script:
            status, body, headers = self.server.script.pop(0)
        else:
            body = json.dumps({"scores": [len(text) for text in asked["texts"]]}).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def config(server: Server, folder: Path, **keys: Any) -> Http:
    url = f"http://127.0.0.1:{server.server_address[1]}/judge"
    base: dict[str, Any] = {
        "name": "judge", "kind": "http", "url": url, "cache": str(folder / "scores.sqlite"),
        "min_score": 0, "calls_per_second": 1000.0, "retries": 1,
    }  # fmt: skip
    return Http(**base | keys)


def test_each_text_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    judge = Endpoint(config(server, tmp_path, batch_size=2, instruction="rate it"))
    assert judge(["a", "bb", "a", "ccc"]) == [1, 2, 1, 3]
    assert [call["texts"] for call in server.calls] == [["a", "bb"], ["ccc"]]
    assert all(call["instruction"] == "rate it" for call in server.calls)
    again = Endpoint(config(server, tmp_path, batch_size=2, instruction="rate it"))
    assert again(["ccc", "dddd", "é"]) == [3, 4, 1]
    assert server.calls[2]["texts"] == ["dddd", "é"]
    assert Endpoint(config(server, tmp_path, instruction="other"))(["a"]) == [1]
    assert len(server.calls) == 4


def test_the_budget_refuses_or_leaves_unjudged(server: Server, tmp_path: Path) -> None:
    judge = Endpoint(config(server, tmp_path, batch_size=2, max_documents=3))
    with pytest.raises(UserError, match=r"used up \(2 calls, 3 documents\); raise max_documents"):
        judge(["a", "bb", "ccc", "dddd"])
    assert sum(len(call["texts"]) for call in server.calls) == 3
    # what is known stays known, in another process too
    left = Endpoint(config(server, tmp_path, max_documents=3, when_spent="unjudged"))
    found = left(["ccc", "dddd", "a"])
    assert found[0] == 3
    assert math.isnan(found[1])
    assert found[2] == 1
    few = Endpoint(config(server, tmp_path / "few", batch_size=1, max_calls=1))
    with pytest.raises(UserError, match=r"used up \(1 calls, 1 documents\); raise max_calls"):
        few(["a", "b"])
    assert len(server.calls) == 3


def test_failures_are_tried_again_within_the_budget(server: Server, tmp_path: Path) -> None:
    server.script = [(503, b"busy", {"Retry-After": "0"}), (429, b"", {"Retry-After": "0"})]
    assert Endpoint(config(server, tmp_path, retries=2))(["abc"]) == [3]
    assert len(server.calls) == 3
    server.script = [(500, b"oh", {"Retry-After": "0"})] * 9
    with pytest.raises(UserError, match="does not answer after 2 attempts: status 500 oh"):
        Endpoint(config(server, tmp_path))(["new"])
    assert len(server.calls) == 5
    with pytest.raises(UserError, match="used up"):
        Endpoint(config(server, tmp_path, max_calls=5))(["newer"])
    # the budget ends between two attempts
    server.script = [(500, b"oh", {"Retry-After": "0"})]
    with pytest.raises(UserError, match=r"used up \(6 calls"):
        Endpoint(config(server, tmp_path, max_calls=6))(["newer"])
    server.script = [(500, b"oh", {"Retry-After": "0"})]
    left = Endpoint(config(server, tmp_path, max_calls=7, when_spent="unjudged"))
    assert math.isnan(left(["newer"])[0])
    assert len(server.calls) == 7


def test_waiting_as_a_server_asks() -> None:
    now = 784111767.0  # ten seconds before the date that RFC 9110 has as its example
    assert retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now, 0.5) == 10
    assert retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now + 99, 0.5) == 0
    assert retry_after("120", now, 0.5) == 120
    for nothing in ("", "soon", "-1", "1.5"):
        assert retry_after(nothing, now, 0.5) == 0.5


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, b"who are you", {}), "refuses: status 401 who are you"),
        ((200, b"hello", {}), "answers 'hello', not"),
        ((200, b'{"scores": [1, 2]}', {}), "with 1 numbers"),
        ((200, b'{"scores": ["x"]}', {}), "with 1 numbers"),
        ((200, b'{"scores": [NaN]}', {}), "with 1 numbers"),
        ((200, b"[1]", {}), "with 1 numbers"),
        ((200, b'{"scores": [1' + b"0" * 400 + b"]}", {}), "with 1 numbers"),
        ((200, b"[" * 100_000, {}), "with 1 numbers"),
        ((302, b"", {"Location": "/elsewhere"}), "refuses: status 302"),
    ],
)
def test_what_makes_no_sense_is_told(
    server: Server, tmp_path: Path, answer: Any, message: str
) -> None:
    server.script = [answer]
    with pytest.raises(UserError, match=message):
        Endpoint(config(server, tmp_path))(["a"])
    assert len(server.calls) == 1


def test_calls_are_spaced(server: Server, tmp_path: Path) -> None:
    judge = Endpoint(config(server, tmp_path, batch_size=1, calls_per_second=20.0))
    begin = time.monotonic()
    judge(["a", "b", "c", "d"])
    assert time.monotonic() - begin >= 3 / 20


def test_a_slow_rate_holds_for_all_who_wait(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Endpoint(config(server, tmp_path, batch_size=1, calls_per_second=0.01))
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)  # as processes that ask at the same time
    judge(["a", "b", "c", "d"])
    assert waits == pytest.approx([0, 100, 200, 300], abs=5)
    with sqlite3.connect(tmp_path / "scores.sqlite") as database:  # the clock was a year ahead
        database.execute("UPDATE spent SET free = free + 3e7")
    judge(["e"])
    assert waits[-1] == 0


def test_those_who_ask_at_once_share_budget_and_rate(server: Server, tmp_path: Path) -> None:
    section = config(server, tmp_path, batch_size=2, calls_per_second=50.0, max_documents=9,
                     when_spent="unjudged")  # fmt: skip

    def ask(who: int) -> list[float]:
        # a connection of its own, as in another process
        return Endpoint(section)([f"{who} {i}" for i in range(6)])

    begin = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        scores = [score for found in pool.map(ask, range(4)) for score in found]
    sent = [text for call in server.calls for text in call["texts"]]
    assert len(sent) == len(set(sent)) == 9
    assert sum(score == 3 for score in scores) == 9
    assert sum(map(math.isnan, scores)) == 4 * 6 - 9
    assert time.monotonic() - begin >= (len(server.calls) - 1) / 50


@pytest.mark.parametrize("url", ["http://[", "https://", "http:///x", "http://a b/", "ftp://a"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Http(name="judge", kind="http", url=url)


def test_the_token_comes_from_the_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = config(server, tmp_path, token_variable="JUDGE_TOKEN")
    with pytest.raises(UserError, match="JUDGE_TOKEN is not set"):
        Endpoint(section)
    monkeypatch.setenv("JUDGE_TOKEN", "secret")
    Endpoint(section)(["a"])
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_nobody_there_and_a_broken_cache(server: Server, tmp_path: Path) -> None:
    section = config(server, tmp_path, retries=0)
    gone = section.model_copy(update={"url": "http://127.0.0.1:9/"})
    with pytest.raises(UserError, match="does not answer after 1 attempts"):
        Endpoint(gone)(["a"])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another cache"):
        Endpoint(section.model_copy(update={"cache": str(tmp_path / "file" / "scores.sqlite")}))
    with pytest.raises(UserError, match="mend that, or choose another cache"):
        Endpoint(section.model_copy(update={"cache": str(tmp_path)}))
    (tmp_path / "scores.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="remove the file to begin anew"):
        Endpoint(section)
