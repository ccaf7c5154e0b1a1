"""`nvembed`: the commands, and what becomes of their errors.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. An error is one line on
standard error; NVEMBED_DEBUG=1 shows the traceback instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from nvembed_jax.cli import (
    calibrate,
    cluster,
    compare,
    convert,
    corpus,
    decontaminate,
    dedup,
    encode,
    evaluate,
    index,
    info,
    mine,
    search,
    serve,
    synthesize,
    train,
)
from nvembed_jax.version import __version__

# Newer versions of Typer bring their own click: its errors are the bases of what Typer exports.
_CLICK_ERROR = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="nvembed",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command shows examples with --help. Documentation: docs/ in the repository.",
)
for command in (
    search, encode, corpus, serve, info, convert, mine, decontaminate, synthesize, evaluate,
    dedup, cluster, calibrate, compare, train,
):  # fmt: skip
    app.command(
        command.NAME,
        help=command.HELP,
        no_args_is_help=command not in (info, serve),
        context_settings=getattr(command, "SETTINGS", None),
    )(command.command)
app.add_typer(index.app, name=index.NAME, help=index.HELP)


def _show_version(wanted: bool) -> bool:
    if wanted:
        print(f"nvembed {__version__}")
        raise typer.Exit
    return wanted


@app.callback(
    help="Text embeddings with NV-Embed and its relatives in JAX: search, serve, convert, train."
)
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> None:
    """The console entry: runs a command and exits with its code."""
    if argv is None and sys.argv[1:2] == [train.NAME]:
        from nvembed_jax.train.huge_pages import restart_with_huge_pages

        restart_with_huge_pages()
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs a command line and returns its exit code; errors are printed to standard error."""
    try:
        code = app(list(argv), prog_name="nvembed", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough (`nvembed search … | head`): there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as stopped:  # click's own answer to the same, from inside a command
        return stopped.code if isinstance(stopped.code, int) else 1
    except (KeyboardInterrupt, typer.Abort):
        return _failed("interrupted", 130)
    except Exception as error:
        if isinstance(error, _CLICK_ERROR):
            return _usage(error)
        if os.environ.get("NVEMBED_DEBUG") == "1":
            raise
        return _failed(f"error: {describe(error)}", 1)
    return code if isinstance(code, int) else 0


def describe(error: Exception) -> str:
    """An error in one line; what should not have happened is named by its type."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, ValueError | OSError | ImportError) and text:
        return text
    return f"{type(error).__name__}: {text} (NVEMBED_DEBUG=1 shows where)"


def _usage(error: Any) -> int:
    """Wrong usage in one line with the way to the help, or the help where nothing was given."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "nvembed"
    message = " ".join(error.format_message().split())
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return 2
    return _failed(f"error: {message.rstrip('.')}. See '{path} --help'", error.exit_code)


def _failed(message: str, code: int) -> int:
    print(f"nvembed: {message}", file=sys.stderr)
    return code
