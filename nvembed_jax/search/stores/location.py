"""Where a store is: a folder, or a collection of a server."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

FOLDER_KINDS = ("faiss", "milvus", "qdrant", "lancedb")
SERVER_KINDS = ("milvus", "qdrant", "weaviate")
KINDS = ("faiss", "milvus", "qdrant", "weaviate", "lancedb")
MEMORY = ":memory:"
KEY_VARIABLE = "NVEMBED_STORE_KEY"
_COLLECTION = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Location:
    """A place that a store can be at.

    Attributes:
        text: as it was given. kind: of the store, one of `KINDS`, or None where the folder says.
        folder: None for a server. url: of the server, without the collection. grpc_port: of a
            Weaviate server. collection: its name in the server or in the folder.
    """

    text: str
    kind: str | None
    folder: Path | None = None
    url: str | None = None
    grpc_port: int = 50051
    collection: str = "points"

    def __str__(self) -> str:
        return self.text

    @property
    def key(self) -> str | None:
        """The API key for a server, from the environment; it stands in no option and no file."""
        return os.environ.get(KEY_VARIABLE) or None


def parse_location(text: str | os.PathLike[str], kind: str | None = None) -> Location:
    """A folder, `http(s)://HOST:PORT/COLLECTION`, or `:memory:` (Qdrant).

    A Weaviate URL may end in `?grpc_port=N` (default 50051).

    Raises:
        ValueError: an unknown kind, or one that cannot be at such a place.
    """
    text = os.fspath(text)
    if kind is not None and kind not in KINDS:
        raise ValueError(f"a store's kind must be one of {', '.join(KINDS)}; got {kind!r}")
    if text == MEMORY:
        if kind != "qdrant":
            raise ValueError(f"{MEMORY}: only qdrant keeps a store in memory; got {kind}")
        return Location(text, kind)
    if not re.match(r"[a-z]+://", text):
        if kind is not None and kind not in FOLDER_KINDS:
            raise ValueError(
                f"{text}: a {kind} store needs a server: http://HOST:PORT/COLLECTION, not a folder"
            )
        return Location(text, kind, folder=Path(text))
    return _server(text, kind)


def _server(text: str, kind: str | None) -> Location:
    if kind not in SERVER_KINDS:
        given = "none was given" if kind is None else f"got {kind}"
        raise ValueError(
            f"{text}: a server's kind must be {', '.join(SERVER_KINDS)}; {given} (--kind)"
        )
    parts = urlsplit(text)
    collection = parts.path.strip("/")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text}: expected http://HOST:PORT/COLLECTION or https://")
    if not _COLLECTION.fullmatch(collection):
        raise ValueError(
            f"{text}: expected http://HOST:PORT/COLLECTION with a collection of letters, digits "
            f"and _; got {collection!r}"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    port = options.pop("grpc_port", "50051")
    if options or not port.isdigit() or (parts.query and kind != "weaviate"):
        raise ValueError(f"{text}: the only option is ?grpc_port=N, of a weaviate server")
    return Location(
        text,
        kind,
        url=f"{parts.scheme}://{parts.netloc}",
        grpc_port=int(port),
        collection=collection,
    )
