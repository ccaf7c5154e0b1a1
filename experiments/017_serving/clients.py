"""Real clients against the live server over loopback: queries, passages, batches and errors; their
embeddings against `Embedder`.

    python experiments/017_serving/clients.py [--python /venv/bin/python ...]

Starts the server, then runs itself with every Python named (and with its own, where that has any
client): each runs the clients that it has. Writes clients.json beside this file; table.py prints
it.

    PYTHON experiments/017_serving/clients.py --part FOLDER

is one of those runs: FOLDER has what to ask, and what must come back.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import client_checks
import numpy as np

HERE = Path(__file__).parent
TEXTS = [
    "how do I convert a checkpoint?",
    "the second text is somewhat longer than the first, and has a comma",
    "Zürich 東京 🙂",
    "a",
    *(f"text number {i} is about {i * i} things" for i in range(116)),
]


def expected(folder: Path, model: str, prefixed: Path) -> None:
    """What every client must see, as files."""
    from nvembed_jax import Embedder

    plain, told_apart = Embedder.from_pretrained(model), Embedder.from_pretrained(prefixed)
    np.savez(
        folder / "expected.npz",
        plain=plain.encode_document(TEXTS),
        query=told_apart.encode_query(TEXTS),
        passage=told_apart.encode_document(TEXTS),
    )


def run_part(folder: Path) -> None:
    """The clients that this Python has."""
    asked = json.loads((folder / "ask.json").read_text("utf8"))
    with np.load(folder / "expected.npz") as arrays:
        asked["expected"] = dict(arrays)
    found = []
    for name, make in client_checks.CLIENTS.items():
        try:
            told = version(name)
        except PackageNotFoundError:
            continue
        found.append({"client": name, "version": told, "checks": list(_checks(make, asked))})
    (folder / "part.json").write_text(json.dumps(found), "utf8")


def _checks(make: Callable[..., Any], asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every check of a client, and what was seen; one that fails does not end the others."""
    try:
        named = make(asked)
    except Exception as error:
        yield {"check": "import", "ok": False, "seen": _told(error)}
        return
    for name, check in named.items():
        try:
            yield {"check": name, "ok": True, "seen": str(check())}
        except client_checks.NotRunError as error:
            yield {"check": name, "ok": None, "seen": str(error)}
        except Exception as error:
            yield {"check": name, "ok": False, "seen": _told(error)}


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def run_all(pythons: list[str], folder: Path) -> list[dict[str, Any]]:
    """One server, and every Python's clients against it."""
    import processes

    prefixed = processes.write_prefixed(folder / "prefixed")
    expected(folder, processes.MODEL, prefixed)
    options = ("--grpc-port", "0", "--api-key", processes.KEY)
    models = ((processes.MODEL, processes.NAME), (str(prefixed), processes.PREFIXED))
    command = processes.serve_command(*models, options=options)
    found = []
    with processes.Server(command, folder / "server.log", urls=2) as server:
        server.wait_ready()
        facts = {
            "url": server.urls[0],
            "grpc": server.urls[1].removeprefix("grpc://"),
            "key": processes.KEY,
            "plain": processes.NAME,
            "prefixed": processes.PREFIXED,
            "texts": TEXTS,
        }
        (folder / "ask.json").write_text(json.dumps(facts), "utf8")
        for python in pythons:
            (folder / "part.json").unlink(missing_ok=True)
            subprocess.run([python, __file__, "--part", str(folder)], check=True, cwd=HERE)
            found += json.loads((folder / "part.json").read_text("utf8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", default=[], help="another that has clients")
    parser.add_argument("--part", type=Path, help="run the clients of this Python only")
    parser.add_argument("--out", type=Path, default=HERE / "clients.json")
    args = parser.parse_args()
    if args.part is not None:
        run_part(args.part)
        return
    import processes

    with tempfile.TemporaryDirectory() as folder:
        found = run_all([sys.executable, *args.python], Path(folder))
    missing = sorted(client_checks.CLIENTS.keys() - {client["client"] for client in found})
    if missing:
        print(f"not installed in any of the Pythons: {', '.join(missing)}")
    facts = {"machine": processes.machine(), "clients": found, "not_installed": missing}
    args.out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf8")
    bad = [
        (client["client"], check)
        for client in found
        for check in client["checks"]
        if check["ok"] is not True
    ]
    total = sum(len(client["checks"]) for client in found)
    print(f"{total - len(bad)} of {total} checks of {len(found)} clients are as expected")
    for client, check in bad:
        print(
            client, check["check"], "not run:" if check["ok"] is None else "FAILED:", check["seen"]
        )


if __name__ == "__main__":
    main()
