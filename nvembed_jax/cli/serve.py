"""`nvembed serve`: models behind an HTTP interface."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options
from nvembed_jax.cli.options import InputType, Truncation
from nvembed_jax.cli.thresholds import Preset

NAME = "serve"
HELP = """Serve models over HTTP, as OpenAI and NVIDIA NIM do.

POST /v1/embeddings, GET /v1/models, /v1/health/live, /v1/health/ready, /v1/metrics and more; the
documentation of the running server stands at /docs. A model's id is its --name, else the folder's
name; ID-query and ID-passage are the same model with the input type decided. --grpc-port adds
KServe's inference protocol.

The server says that it is ready when every batch shape is compiled. SIGTERM ends it after the
requests that are open. Every option can be set in the environment too: NVEMBED_PORT,
NVEMBED_API_KEY, NVEMBED_MODEL (several parted by spaces) and so on.

\b
Examples:
  nvembed serve
  nvembed serve --model nvidia/NV-Embed-v2 --port 9000 --api-key-file keys.txt
  nvembed serve --grpc-port 8001
  nvembed serve --model ./e5 --name e5 --model ./mini --name mini --default-input-type passage
  NVEMBED_API_KEY=secret nvembed serve --host 0.0.0.0 --model ./my-model
"""
SETTINGS = {"auto_envvar_prefix": "NVEMBED"}


class LogLevel(StrEnum):
    """What is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", metavar="MODEL",
        help="Model folder or name; may be given many times. Default: the bundled model.",
    ),
]  # fmt: skip
Names = Annotated[
    list[str] | None,
    typer.Option("--name", metavar="ID", help="Id of a model, in the order of --model."),
]
Host = Annotated[str, typer.Option("--host", help="Address; 0.0.0.0: all of this machine.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")]
GrpcPort = Annotated[
    int | None,
    typer.Option(
        "--grpc-port", min=0, max=65535,
        help="KServe's inference protocol (v2) on this port. Default: no gRPC.",
    ),
]  # fmt: skip
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--api-key", metavar="KEY",
        help="A key that requests must have, one of several. On the command line others can see "
        "it: better NVEMBED_API_KEY or a file.",
    ),
]  # fmt: skip
KeyFile = Annotated[Path | None, typer.Option("--api-key-file", help="Keys, one a line.")]
DefaultInputType = Annotated[
    InputType | None,
    typer.Option("--default-input-type", help="Of requests that name none. Default: refused."),
]
Calibrations = Annotated[
    list[Path] | None,
    typer.Option(
        "--calibration", metavar="FILE",
        help="Of `nvembed calibrate`, for one of the models: /similarity then tells which scores "
        "match. May be given many times.",
    ),
]  # fmt: skip
PresetOption = Annotated[
    Preset, typer.Option("--preset", help="Threshold of calibrations, where requests name none.")
]
AllowDimensions = Annotated[
    bool,
    typer.Option(
        "--allow-dimensions", help="Shorten embeddings also of models not trained for that."
    ),
]
MaxInputs = Annotated[int, typer.Option("--max-inputs", min=1, help="Texts of one request.")]
MaxBody = Annotated[int, typer.Option("--max-body-mib", min=1, help="Size of one request.")]
QueueTokens = Annotated[
    int | None,
    typer.Option("--max-queue-tokens", min=1, help="Above it: 429. Default: 32 batches."),
]
QueueRequests = Annotated[
    int, typer.Option("--max-queue-requests", min=1, help="Open ones; above it: 429.")
]
Warmup = Annotated[
    bool, typer.Option("--warmup/--no-warmup", help="Compile all batch shapes first.")
]
WarmupLength = Annotated[
    int,
    typer.Option(
        "--warmup-length", min=1, help="Tokens; longer texts are compiled for when they come."
    ),
]
DrainDelay = Annotated[
    float,
    typer.Option(
        "--drain-delay", min=0, help="Seconds from a SIGTERM, when ready turns false, to the end "
        "of listening.",
    ),
]  # fmt: skip
DrainTimeout = Annotated[
    float, typer.Option("--drain-timeout", min=0, help="Seconds for requests still open then.")
]
LogLevelOption = Annotated[LogLevel, typer.Option("--log-level", help="Of the JSON logs.")]


def command(
    model: Models = None,
    name: Names = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    grpc_port: GrpcPort = None,
    api_key: Keys = None,
    api_key_file: KeyFile = None,
    default_input_type: DefaultInputType = None,
    task: options.Task = None,
    calibration: Calibrations = None,
    preset: PresetOption = Preset.balanced,
    allow_dimensions: AllowDimensions = False,
    max_inputs: MaxInputs = 2048,
    max_body_mib: MaxBody = 16,
    max_queue_tokens: QueueTokens = None,
    max_queue_requests: QueueRequests = 1024,
    batch_tokens: options.BatchTokens = None,
    warmup: Warmup = True,
    warmup_length: WarmupLength = 512,
    drain_delay: DrainDelay = 1.0,
    drain_timeout: DrainTimeout = 30.0,
    max_length: options.MaxLength = None,
    truncation: options.TruncationOption = Truncation.keep_eos,
    dtype: options.DtypeOption = None,
    attention: options.AttentionOption = None,
    pooling: options.PoolingOption = None,
    log_level: LogLevelOption = LogLevel.info,
) -> None:
    """See `HELP`."""
    ids = _ids(model or [None], name or [])
    loading = {"dtype": dtype, "attention": attention, "pooling": pooling, "truncation": truncation}
    settings = {
        "default_input_type": default_input_type and default_input_type.value,
        "task": task,
        "calibrations": calibration or [],
        "preset": preset.name,
        "allow_dimensions": allow_dimensions,
        "max_inputs": max_inputs,
        "max_body_bytes": max_body_mib * 2**20,
        "max_queue_tokens": max_queue_tokens,
        "max_queue_requests": max_queue_requests,
        "batch_tokens": batch_tokens,
        "warmup": warmup,
        "warmup_length": warmup_length,
        "drain_delay_s": drain_delay,
        "drain_timeout_s": drain_timeout,
    }
    keys = {"given": api_key or [], "file": api_key_file}
    ports = {"host": host, "port": port, "grpc_port": grpc_port}
    _serve(ids, {"max_length": max_length, **loading}, settings, keys, ports, log_level)


def _serve(
    ids: Sequence[tuple[str | None, str]],
    loading: dict[str, Any],
    settings: dict[str, Any],
    keys: dict[str, Any],
    ports: dict[str, Any],
    log_level: LogLevel,
) -> None:
    """Everything cheap is checked before the first model is loaded."""
    from nvembed_jax.serve import ServerSettings, check_packages

    check_packages(with_rpc=ports["grpc_port"] is not None)
    from nvembed_jax.calibration.artefact import load_calibration
    from nvembed_jax.cli.progress import note
    from nvembed_jax.serve.keys import read_keys
    from nvembed_jax.serve.logs import configure
    from nvembed_jax.serve.server import run_server

    settings["calibrations"] = tuple(map(load_calibration, settings["calibrations"]))
    chosen = ServerSettings(api_keys=read_keys(**keys), **settings)
    configure(log_level.value)
    host = ports["host"]
    if not chosen.api_keys and host not in ("127.0.0.1", "::1", "localhost"):
        note(f"no API key: whoever reaches {host}:{ports['port']} can send requests")
    models = [(id, options.load_model(spec, **loading)) for spec, id in ids]
    run_server(models, chosen, **ports, on_listening=lambda url: note(f"serving at {url}"))


def _ids(models: Sequence[str | None], names: Sequence[str]) -> list[tuple[str | None, str]]:
    """(model as given, its id) pairs."""
    from nvembed_jax.interop import is_remote

    if names and len(names) != len(models):
        raise options.usage_error(
            f"--name: give one for each --model; got {len(names)} for {len(models)}"
        )
    for model in models:
        if is_remote(model):
            raise options.usage_error("--model: a remote model cannot be served; name a local one")
    ids = list(names) or [_own_id(model) for model in models]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    if twice or not all(ids):
        raise options.usage_error(
            f"two models are named {twice[0]!r}: give each a --name" if twice else "--name is empty"
        )
    return list(zip(models, ids, strict=True))


def _own_id(model: str | None) -> str:
    """A folder's name; of a name in a cache or on the hub, the name."""
    if model is None or not Path(model).expanduser().is_dir():
        return model or "nvembed-tiny"
    return Path(os.path.abspath(Path(model).expanduser())).name
