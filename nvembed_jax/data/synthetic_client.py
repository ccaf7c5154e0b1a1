"""Questions to an OpenAI-compatible chat endpoint, several at once, and a journal of the answers,
from which a stopped run goes on.
"""

from __future__ import annotations

import email.utils
import fcntl
import json
import os
import threading
import time
from array import array
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_REFUSED = frozenset({400, 413, 422})  # about this one question, once others were answered
_LONGEST_WAIT = 120.0  # seconds
_FIRST_TRIES = 3  # of a server that was never reached: most likely the URL is wrong


@dataclass(frozen=True, kw_only=True)
class ChatEndpoint:
    """Where to ask and how.

    Attributes:
        base_url: up to /v1; /chat/completions is added. model: its name there.
        api_key: None: no authorization is sent; never written anywhere.
        temperature, max_tokens: of the answers. concurrency: questions at a time.
        timeout_s: for one answer. max_retries: after 429, 5xx, timeouts and lost connections.
        backoff_s: before the first retry; doubled each time, unless the server says Retry-After.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    temperature: float = 1.0
    max_tokens: int = 2048
    concurrency: int = 8
    timeout_s: float = 120.0
    max_retries: int = 6
    backoff_s: float = 1.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(
                f"the base URL must start with http:// or https://; got {self.base_url!r}"
            )
        if self.concurrency < 1 or self.max_retries < 0 or self.timeout_s <= 0:
            raise ValueError(
                f"concurrency must be at least 1, max_retries 0, and timeout_s over 0; got "
                f"{self.concurrency}, {self.max_retries} and {self.timeout_s}"
            )


class Request(NamedTuple):
    """One question; the id tells it from all others of a run."""

    id: str
    prompt: str


class ChatClient:
    """Asks one endpoint from several threads; use it as a context manager.

    Args:
        answered: it has answered before: what it refuses now is about the question.

    Attributes:
        retries, tokens: counted over all questions; tokens as the endpoint says.
    """

    def __init__(self, endpoint: ChatEndpoint, answered: bool = False) -> None:
        try:
            import httpx
        except ImportError:
            raise ImportError(
                'asking a chat endpoint needs httpx: pip install "nvembed_jax[curate]"'
            ) from None
        self._endpoint, self._httpx = endpoint, httpx
        self._url = endpoint.base_url.rstrip("/") + "/chat/completions"
        headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        limits = httpx.Limits(max_connections=endpoint.concurrency)
        self._client = httpx.Client(headers=headers, timeout=endpoint.timeout_s, limits=limits)
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self.retries, self.tokens, self._answered = 0, 0, answered

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *error: Any) -> None:
        self._client.close()

    def complete(self, prompt: str) -> dict[str, str]:
        """{"answer": text}, or {"refused": why} for a question that the endpoint will not take.

        Raises:
            ValueError: the endpoint refuses the request as such (key, model, URL).
            ConnectionError: it could not be reached, or had no answer after all retries.
        """
        body = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self._endpoint.temperature,
            "max_tokens": self._endpoint.max_tokens,
        }
        reason, tries = "stopped", self._endpoint.max_retries + 1
        for attempt in range(tries):
            if self._stopped.is_set() or attempt >= tries:
                break
            wait = self._endpoint.backoff_s * 2**attempt
            try:
                response = self._client.post(self._url, json=body)
            except self._httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
                if isinstance(error, self._httpx.ConnectError) and not self._answered:
                    tries = min(tries, _FIRST_TRIES)
            else:
                done = self._result(response)
                if done is not None:
                    return done
                reason = f"HTTP {response.status_code}"
                wait = _retry_after(response.headers.get("retry-after"), wait)
            if attempt + 1 < tries:
                with self._lock:
                    self.retries += 1
                self._stopped.wait(min(wait, _LONGEST_WAIT))
        raise ConnectionError(
            f"{self._url}: no answer after {tries} tries ({reason}); what was answered so far is "
            f"kept: run the same command again to go on"
        )

    def stop(self) -> None:
        """Ends all waiting between retries."""
        self._stopped.set()

    def _result(self, response: Any) -> dict[str, str] | None:
        """What a response says; None: try again."""
        status = response.status_code
        if status in _RETRIED:
            return None
        if status in _REFUSED and self._answered:
            return {"refused": f"refused by the endpoint (HTTP {status})"}
        if status != 200:
            text = " ".join(response.text.split())[:300]
            raise ValueError(
                f"{self._url}: HTTP {status}: {text or 'no message'}; check the base URL, the "
                f"model's name and the API key"
            )
        try:
            data = response.json()
            content = data["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            return None
        with self._lock:
            self._answered = True
            usage = data.get("usage")
            total = usage.get("total_tokens") if isinstance(usage, dict) else None
            self.tokens += total if isinstance(total, int) else 0
        return {"answer": content if isinstance(content, str) else ""}


class Journal:
    """Answers by request id, appended to a file one line each; use it as a context manager.

    The first line names the settings that the prompts depend on. In memory stand only offsets.

    Raises:
        ValueError: the file was written with other settings, is none of ours, or is in use.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self._lock = path, threading.Lock()
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path}: cannot be written, there is no folder {path.parent}")
        self._file = path.open("ab+")
        try:
            self._lock_file()
            self._read(settings)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __contains__(self, id: str) -> bool:
        return id in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, id: str) -> dict[str, str]:
        row = self._rows[id]
        start, stop = self._ends[row], self._ends[row + 1]
        with self._lock:
            return json.loads(os.pread(self._file.fileno(), stop - start, start))

    def add(self, id: str, result: dict[str, str]) -> None:
        """Appends an answer; it is on the disk when this returns."""
        with self._lock:
            self._append({"id": id, **result})
            self._rows[id] = len(self._ends) - 2

    def _append(self, row: dict[str, Any]) -> None:
        line = (json.dumps(row) + "\n").encode()
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._ends.append(self._ends[-1] + len(line))

    def _lock_file(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.path}: is in use by another run; wait for it") from None
        except OSError:
            pass  # a file system without locks

    def _read(self, settings: dict[str, Any]) -> None:
        self._ends, self._rows = array("q", [0]), dict[str, int]()
        header = {"journal": "nvembed synthesize", "settings": settings}
        self._file.seek(0)
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break  # cut off when a run was killed
            row = self._checked(line, number)
            if number == 1:
                self._check_header(row, header)
            else:
                self._rows[row["id"]] = number - 1
            self._ends.append(self._ends[-1] + len(line))
        self._file.truncate(self._ends[-1])
        if len(self._ends) == 1:
            self._append(header)

    def _checked(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or (number > 1 and "id" not in row):
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{self.path}:{number}: not a line of a journal; name another output, or remove "
                f"the file"
            ) from None
        return row

    def _check_header(self, row: dict[str, Any], header: dict[str, Any]) -> None:
        if row.get("journal") != header["journal"]:
            raise ValueError(f"{self.path}: is not a journal of this command; name another output")
        old, new = row.get("settings", {}), json.loads(json.dumps(header["settings"]))
        changed = [key for key in new if old.get(key) != new[key]]
        if changed:
            key = changed[0]
            raise ValueError(
                f"{self.path}: was begun with {key} {old.get(key)!r}, not {new[key]!r}; go on with "
                f"the former, remove the file, or name another output"
            )


def ask_all(
    client: ChatClient, journal: Journal, requests: Iterable[Request], concurrency: int, bar: Any
) -> None:
    """Asks what the journal does not hold yet; every answer goes into it at once.

    Raises:
        ValueError, ConnectionError: as `ChatClient.complete`; questions under way are let end
            first, so that no answer is lost.
    """
    waiting = [request for request in requests if request.id not in journal]

    def ask(request: Request) -> None:
        journal.add(request.id, client.complete(request.prompt))

    pool = ThreadPoolExecutor(concurrency)
    try:
        for future in as_completed([pool.submit(ask, request) for request in waiting]):
            future.result()
            bar.update(1)
    except BaseException:
        client.stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _retry_after(value: str | None, default: float) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date."""
    if value is None:
        return default
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return default
