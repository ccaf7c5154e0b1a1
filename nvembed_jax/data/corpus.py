"""A corpus that can be read more than once, and checked to its end before work starts on it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from nvembed_jax.data.records import DEFAULT_FIELD, Record, read_records


@dataclass(frozen=True)
class CorpusFacts:
    """What one reading tells: size, SHA-256 over ids, titles and texts, and files passed over."""

    count: int
    digest: str
    skipped: tuple[str, ...]


class Corpus:
    """The records of a source, from the start at each call of `records`; use it as a context
    manager.

    Standard input is copied to a temporary file first, because it can be read only once.
    """

    def __init__(
        self, source: str | Path, field: str = DEFAULT_FIELD, format: str | None = None
    ) -> None:
        self._source, self._field, self._format = source, field, format
        self._copy: Path | None = None

    def __enter__(self) -> Corpus:
        if self._source == "-":
            with tempfile.NamedTemporaryFile(
                prefix="nvembed-", suffix=".jsonl", delete=False
            ) as file:
                self._copy = Path(file.name)
                try:
                    for record in read_records("-", field=self._field, format=self._format):
                        file.write((json.dumps(record._asdict()) + "\n").encode())
                except BaseException:
                    self._copy.unlink()
                    raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._copy is not None:
            self._copy.unlink(missing_ok=True)

    def records(self) -> Iterator[Record]:
        """All records in order; errors as `read_records` raises them."""
        if self._copy is not None:
            return read_records(self._copy)
        return read_records(self._source, field=self._field, format=self._format)

    def scan(self) -> CorpusFacts:
        """Reads all of it once: a bad line stops here, not hours into the encoding."""
        skipped: list[str] = []
        if self._copy is None:
            records = read_records(
                self._source,
                field=self._field,
                format=self._format,
                on_skip=lambda path, reason: skipped.append(f"{path} ({reason})"),
            )
        else:
            records = self.records()
        digest, count = hashlib.sha256(), 0
        for record in records:
            digest.update(json.dumps(record).encode())
            count += 1
        return CorpusFacts(count, digest.hexdigest(), tuple(skipped))
