"""`nvembed synthesize`: training examples written by a language model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options

NAME = "synthesize"
HELP = """Make training examples with a language model.

Asks any OpenAI-compatible chat endpoint, in two steps: for tasks, then for examples of each: a
query, a document that is right for it, and one that only seems so (a hard negative). OUT: examples
for training; OUT.journal.jsonl: every answer, from which a stopped run goes on;
OUT.report.json: which answers were not used, and why.

The API key is read from $NVEMBED_CHAT_API_KEY, or from a file; local servers need none.

\b
Examples:
  nvembed synthesize -o made.jsonl --base-url http://localhost:8000/v1 --chat-model MODEL
  nvembed synthesize -o made.jsonl --base-url URL --chat-model M --count 120000 --concurrency 32
  nvembed synthesize -o made.jsonl --base-url URL --chat-model M --kinds short-long --seed 1
  nvembed synthesize -o made.jsonl --base-url URL --chat-model M --languages English,German,Hindi
"""

Out = Annotated[Path, typer.Option("--output", "-o", help="The file to write: .jsonl(.gz).")]
BaseUrl = Annotated[
    str,
    typer.Option(
        "--base-url",
        envvar="NVEMBED_CHAT_BASE_URL",
        help="Of the endpoint, up to /v1; /chat/completions is added.",
    ),
]
ChatModel = Annotated[
    str,
    typer.Option("--chat-model", envvar="NVEMBED_CHAT_MODEL", help="The model's name there."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", help="File with the key. Default: $NVEMBED_CHAT_API_KEY."),
]
Count = Annotated[int, typer.Option("--count", min=1, help="Examples, all kinds together.")]
Kinds = Annotated[
    str, typer.Option("--kinds", help="Of short-long, long-short, short-short; with commas.")
]
Languages = Annotated[
    str, typer.Option("--languages", help="English names, with commas; drawn from evenly.")
]
PerTask = Annotated[int, typer.Option("--per-task", min=1, help="Examples of one task.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of all that is drawn.")]
MinhashThreshold = Annotated[
    float | None,
    typer.Option(
        "--minhash-threshold",
        help="Also drop queries nearly like an earlier one: Jaccard similarity, 0 to 1.",
    ),
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="Requests at a time.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="Of the answers.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Of one answer.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one answer.")]
Retries = Annotated[
    int,
    typer.Option("--retries", min=0, help="Of a request, after 429, 5xx, timeouts, lost lines."),
]


def command(
    out: Out,
    base_url: BaseUrl,
    chat_model: ChatModel,
    api_key_file: KeyFile = None,
    count: Count = 100,
    kinds: Kinds = "short-long,long-short,short-short",
    languages: Languages = "English",
    per_task: PerTask = 2,
    seed: Seed = 0,
    minhash_threshold: MinhashThreshold = None,
    concurrency: Concurrency = 8,
    temperature: Temperature = 1.0,
    max_tokens: MaxTokens = 2048,
    timeout: Timeout = 120.0,
    retries: Retries = 6,
) -> None:
    """See `HELP`."""
    from nvembed_jax.data.synthetic import SyntheticOptions, synthesize
    from nvembed_jax.data.synthetic_client import ChatEndpoint

    try:
        endpoint = ChatEndpoint(
            base_url=base_url,
            model=chat_model,
            api_key=_api_key(api_key_file),
            temperature=temperature,
            max_tokens=max_tokens,
            concurrency=concurrency,
            timeout_s=timeout,
            max_retries=retries,
        )
        chosen = SyntheticOptions(
            count=count,
            kinds=_names(kinds),
            languages=_names(languages),
            per_task=per_task,
            seed=seed,
            minhash_threshold=minhash_threshold,
        )
    except ValueError as error:
        raise options.usage_error(str(error)) from None
    _print(synthesize(out, endpoint, options=chosen), out)


def _api_key(path: Path | None) -> str | None:
    key = os.environ.get("NVEMBED_CHAT_API_KEY") if path is None else path.read_text().strip()
    return key or None


def _names(given: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(",") if name.strip())


def _print(report: Any, out: Path) -> None:
    from nvembed_jax.cli.progress import note

    print(f"examples  {report.examples:,} of {report.wanted:,} wanted")
    for kind, count in report.by_kind.items():
        print(f"  {kind:<12} {count:,} of {report.tasks[kind]:,} tasks")
    rejected = sum(report.rejected.values())
    print(f"answers   {report.answers:,}, {rejected:,} of them rejected")
    for reason, count in report.rejected.most_common():
        print(f"  {reason}: {count:,}")
    if report.tokens:
        print(f"tokens    {report.tokens:,} in this run")
    if report.examples < report.wanted:
        note("fewer than wanted: too many answers were rejected; run again with a higher --count")
    note(f"wrote {report.examples:,} examples to {out}, the report to {out}.report.json")
