"""`nvembed convert`: a checkpoint from the published layout into ours, or back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nvembed_jax.cli import options

NAME = "convert"
HELP = """Convert a checkpoint: Hugging Face (PyTorch) into ours, or back.

SRC: a folder, or a name in the local Hugging Face cache or on the hub. DST: a new folder; it
appears only when it is complete. Tensors stream through: a model of any size needs less than
100 MiB of memory.

\b
Examples:
  nvembed convert nvidia/NV-Embed-v2 nv-embed-v2
  nvembed convert nvidia/NV-Embed-v2 nv-embed-v2-f16 --dtype float16
  nvembed convert nv-embed-v2 nv-embed-v2-torch --to torch
"""


class Target(StrEnum):
    """Layouts."""

    jax = "jax"
    torch = "torch"


def command(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder or name of the checkpoint.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write.")],
    to: Annotated[
        Target, typer.Option("--to", help="Our layout, or the published one.")
    ] = Target.jax,
    dtype: Annotated[
        options.Dtype | None,
        typer.Option("--dtype", help="Of the weights. Default: the source's, bit for bit."),
    ] = None,
) -> None:
    """See `HELP`."""
    if to is Target.torch and dtype is not None:
        raise options.usage_error("--dtype goes with --to jax; an export keeps the dtype")

    from nvembed_jax.checkpoint import convert_checkpoint, export_checkpoint
    from nvembed_jax.checkpoint.published_form import sentence_transformers_limits
    from nvembed_jax.checkpoint.store import load_config, resolve_model
    from nvembed_jax.cli.progress import note, progress_bar

    folder = resolve_model(source)
    with progress_bar(None, "B", scaled=True) as show:
        if to is Target.torch:
            export_checkpoint(folder, destination, progress=show)
        else:
            convert_checkpoint(folder, destination, dtype=dtype and dtype.value, progress=show)
    note(f"wrote {destination}")
    if to is Target.torch:
        for line in sentence_transformers_limits(load_config(folder)):
            note(line)
