"""The peer: sentence-transformers behind FastAPI, as one would write it in an afternoon. Every
request is encoded by itself, one at a time; requests and answers have OpenAI's form.

    python experiments/017_serving/peer.py --model FOLDER [--length 256]
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class Body(BaseModel):
    input: str | list[str]


def make_app(model: SentenceTransformer) -> FastAPI:
    app, lock = FastAPI(), threading.Lock()

    @app.get("/ready")
    def ready() -> dict:
        return {}

    @app.post("/v1/embeddings")
    def embeddings(body: Body) -> dict:
        texts = [body.input] if isinstance(body.input, str) else body.input
        with lock:  # two at a time on the same cores are slower than one after the other
            rows = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        data = [{"index": i, "embedding": row.tolist()} for i, row in enumerate(rows)]
        return {"object": "list", "data": data}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--length", type=int, default=256)
    args = parser.parse_args()
    model = SentenceTransformer(args.model, device="cpu")
    model.max_seq_length = args.length
    with torch.inference_mode():
        model.encode(["warm up"] * 32)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"serving at http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    config = uvicorn.Config(make_app(model), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
