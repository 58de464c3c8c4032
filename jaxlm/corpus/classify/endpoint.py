"""An HTTP endpoint as a judge of text: known scores on disk, a rate limit, a budget, retries.

All processes of a machine share one SQLite file: scores by the hash of what was asked, what has
been spent, and when the next call may be made.
"""

import email.utils
import hashlib
import http.client
import itertools
import json
import math
import os
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxlm.config.classifiers import Http
from jaxlm.errors import UserError

MOST_BYTES = 16 << 20
LONGEST_WAIT = 60.0
LONGEST_QUEUE = 1000
"""Calls that may wait for their turn; a turn farther off is that of a clock which was set back."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: token and texts go to the URL of the config and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """None makes the redirect an HTTPError."""


class Endpoint:
    """Scores texts by asking; what was asked once is never asked again."""

    def __init__(self, config: Http) -> None:
        assert config.cache is not None, "filled in when the config is resolved"
        self.config = config
        self.headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if config.token_variable is not None:
            token = os.environ.get(config.token_variable)
            if not token:
                raise UserError(
                    f"classifier {config.name}: the environment variable {config.token_variable} "
                    "is not set; put the endpoint's token there"
                )
            self.headers["Authorization"] = f"Bearer {token}"
        self.opener = urllib.request.build_opener(_Stay)
        self.path = Path(config.cache).expanduser()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"classifier {config.name}: {self.path.parent}: {error.strerror}; "
                "choose another cache"
            ) from None
        with self._database() as database:
            database.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, score REAL)")
            database.execute(
                "CREATE TABLE IF NOT EXISTS spent (calls INT, documents INT, free REAL)"
            )
            if not database.execute("SELECT 1 FROM spent").fetchone():
                database.execute("INSERT INTO spent VALUES (0, 0, 0)")

    def __call__(self, texts: list[str]) -> list[float]:
        """One score a text, NaN for one that the budget did not reach (when_spent: unjudged).

        Raises UserError when the budget is used up, the endpoint refuses, or it does not answer
        in the form that is asked for.
        """
        keys = [self._key(text) for text in texts]
        known: dict[bytes, float] = {}
        with self._database() as database:
            for key in keys:
                row = database.execute("SELECT score FROM scores WHERE key = ?", (key,)).fetchone()
                if row:
                    known[key] = row[0]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        while missing:
            batch = list(itertools.islice(missing.items(), self.config.batch_size))
            batch = batch[: self._reserve(len(batch))]
            scores = self._ask([text for _, text in batch]) if batch else None
            if scores is None:
                if self.config.when_spent == "refuse":
                    raise self._used_up()
                break
            with self._database() as database:
                for (key, _), score in zip(batch, scores, strict=True):
                    database.execute("INSERT OR REPLACE INTO scores VALUES (?, ?)", (key, score))
                    known[key] = score
                    del missing[key]
        return [known.get(key, math.nan) for key in keys]

    def _key(self, text: str) -> bytes:
        asked = json.dumps([self.config.url, self.config.instruction, text])
        return hashlib.blake2b(asked.encode(), digest_size=16).digest()

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A transaction of its own, so that no process keeps the file locked while it waits."""
        try:
            connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                connection.close()
        except sqlite3.OperationalError as error:  # locked, read-only, no room
            raise UserError(
                f"classifier {self.config.name}: {self.path}: {error}; mend that, or choose "
                "another cache"
            ) from None
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"classifier {self.config.name}: {self.path}: {error}; remove the file to begin "
                "anew (all texts are sent again), or choose another cache"
            ) from None

    def _reserve(self, documents: int) -> int:
        """How many of these documents one more call may send; 0 when the budget is used up."""
        config = self.config
        with self._database() as database:
            calls, sent, _ = database.execute("SELECT * FROM spent").fetchone()
            left = documents
            if config.max_documents is not None:
                left = min(left, config.max_documents - sent)
            if left > 0 and (config.max_calls is None or calls < config.max_calls):
                database.execute("UPDATE spent SET documents = documents + ?", (left,))
                return int(left)
        return 0

    def _used_up(self) -> UserError:
        with self._database() as database:
            calls, sent, _ = database.execute("SELECT * FROM spent").fetchone()
        most = self.config.max_documents
        name = "max_documents" if most is not None and sent >= most else "max_calls"
        return UserError(
            f"classifier {self.config.name}: the budget is used up ({calls} calls, {sent} "
            f"documents); raise {name} or set when_spent: unjudged. Scores so far are kept in "
            f"{self.path}"
        )

    def _call(self) -> bool:
        """Count a call and wait for its turn; False when no more may be made."""
        with self._database() as database:
            calls, _, free = database.execute("SELECT * FROM spent").fetchone()
            if self.config.max_calls is not None and calls >= self.config.max_calls:
                return False
            apart, now = 1 / self.config.calls_per_second, time.time()
            turn = now if free > now + LONGEST_QUEUE * apart else max(now, free)
            database.execute("UPDATE spent SET calls = calls + 1, free = ?", (turn + apart,))
        time.sleep(max(0.0, turn - time.time()))
        return True

    def _ask(self, texts: list[str]) -> list[float] | None:
        """The endpoint's scores; None when the budget of calls ends before it gives them."""
        config = self.config
        body: dict[str, Any] = {"texts": texts}
        if config.instruction is not None:
            body["instruction"] = config.instruction
        request = urllib.request.Request(
            config.url, json.dumps(body).encode(), self.headers, method="POST"
        )
        failure = ""
        for attempt in range(config.retries + 1):
            if not self._call():
                return None
            wait = 0.5 * 2**attempt
            try:
                with self.opener.open(request, timeout=config.timeout_seconds) as response:
                    return self._scores(response.read(MOST_BYTES), len(texts))
            except urllib.error.HTTPError as error:
                text = error.read(300).decode(errors="replace").strip()
                failure = f"status {error.code} {text}".strip()
                if error.code != 429 and error.code < 500:
                    raise UserError(
                        f"classifier {config.name}: {config.url} refuses: {failure}"
                    ) from None
                wait = retry_after(error.headers.get("Retry-After", ""), time.time(), wait)
            except (OSError, http.client.HTTPException) as error:
                failure = str(error) or type(error).__name__
            if attempt < config.retries:
                time.sleep(min(wait, LONGEST_WAIT))
        raise UserError(
            f"classifier {config.name}: {config.url} does not answer after {config.retries + 1} "
            f"attempts: {failure}. Scores so far are kept in {self.path}"
        )

    def _scores(self, raw: bytes, number: int) -> list[float]:
        try:
            scores = json.loads(raw)["scores"]
            good = len(scores) == number and all(
                type(score) in (int, float) and math.isfinite(score) for score in scores
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            good = False
        if not good:
            head = raw[:200].decode(errors="replace")
            raise UserError(
                f"classifier {self.config.name}: {self.config.url} answers {head!r}, not "
                f'{{"scores": [...]}} with {number} numbers'
            )
        return [float(score) for score in scores]


def retry_after(header: str, now: float, otherwise: float) -> float:
    """Seconds to wait by a header Retry-After: a number of them, or the date when they are over
    (RFC 9110, section 10.2.3); `otherwise` when it is neither."""
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except ValueError:
        return otherwise
