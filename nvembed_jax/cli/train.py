"""`nvembed train`: a recipe to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "train"
HELP = """Train a model by a recipe, in as many stages as it has.

FILE.py defines get_config(); `configs/` has recipes. Every value of it can be set from here with
--config.KEY=VALUE. WORKDIR gets recipe.json, metrics.jsonl (a line a step), checkpoints/ and at the
end model/, a folder that every other command loads. The same command on the same WORKDIR resumes
where it stopped; the result is the same, bit for bit. SIGTERM or Ctrl-C saves first.

\b
Examples:
  nvembed train --config configs/tiny_cpu.py --workdir run1
  nvembed train --config configs/tiny_cpu.py --workdir run2 \\
      --config.stage1.data=pairs.jsonl --config.stage1.steps=200 --config.stage2.steps=0
  nvembed train --config configs/nv_embed_v2.py --workdir run3 --plan
  srun nvembed train --config configs/nv_embed_v2.py --workdir run3 --distributed
"""
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def command(
    context: typer.Context,
    config: Annotated[
        str, typer.Option("--config", metavar="FILE.py", help="The recipe (FILE.py:ARG gives ARG).")
    ],
    workdir: Annotated[Path, typer.Option("--workdir", help="The folder of the run.")],
    distributed: Annotated[
        bool,
        typer.Option("--distributed", help="This is one of several processes of one run."),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the memory plan and stop; loads nothing.")
    ] = False,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="A bar; default: on a terminal.")
    ] = None,
) -> int:
    """See `HELP`."""
    from nvembed_jax.cli.options import usage_error
    from nvembed_jax.train import command as trainer
    from nvembed_jax.train.config_file import parse_overrides

    try:
        parse_overrides(context.args)
    except ValueError as error:
        raise usage_error(str(error)) from None
    return trainer.run(
        config, workdir, context.args, distributed=distributed, plan_only=plan, progress=progress
    )
