"""Options that several commands share: their names, choices and help."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer


class Dtype(StrEnum):
    """Compute dtypes."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Attention(StrEnum):
    """Which tokens a token attends to."""

    bidirectional = "bidirectional"
    causal = "causal"


class Pooling(StrEnum):
    """How hidden states become one embedding."""

    latent = "latent"
    mean = "mean"
    eos = "eos"
    cls = "cls"
    self_attention = "self_attention"


class Truncation(StrEnum):
    """What a text that is too long keeps."""

    keep_eos = "keep_eos"
    published = "published"


class Precision(StrEnum):
    """How embeddings are stored."""

    float32 = "float32"
    int8 = "int8"
    uint8 = "uint8"
    binary = "binary"
    ubinary = "ubinary"


class InputType(StrEnum):
    """What a text is to the model."""

    query = "query"
    passage = "passage"


class Format(StrEnum):
    """Input formats."""

    txt = "txt"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="NVEMBED_MODEL",
        help="Model folder or name, or a remote model (docs/remote.md). Default: the bundled "
        "model.",
    ),
]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype",
        help="Of weights and activations. Default: bfloat16 on accelerators, float32 on CPUs.",
    ),
]
AttentionOption = Annotated[
    Attention | None, typer.Option("--attention", help="Default: as the model says.")
]
PoolingOption = Annotated[
    Pooling | None, typer.Option("--pooling", help="Default: as the model says.")
]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", min=1, help="Tokens a text keeps. Default: the model's."),
]
BatchTokens = Annotated[
    int | None,
    typer.Option(
        "--batch-tokens", min=1, help="Tokens in a batch, padding included: less needs less memory."
    ),
]
Field = Annotated[
    str, typer.Option("--field", help="Key (.jsonl) or column (.csv, .parquet) of the text.")
]
FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="Format of the input. Default: by its name; standard "
        "input: JSONL if its first line is an object, else a text a line.",
    ),
]  # fmt: skip
Task = Annotated[
    str | None,
    typer.Option("--task", help="Task description for the queries, in the model's template."),
]

InputTypeOption = Annotated[
    InputType | None,
    typer.Option(
        "--input-type", help="What the texts are to the model. Default: passage; query with --task."
    ),
]
Prompt = Annotated[
    str | None, typer.Option("--prompt", help="Raw prefix of every text, instead of an input type.")
]
PromptName = Annotated[
    str | None,
    typer.Option("--prompt-name", help="One of the model's named prompts (nvembed info)."),
]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="How embeddings are stored.")
]
TruncateDim = Annotated[
    int | None,
    typer.Option(
        "--truncate-dim", min=1, help="Leading dimensions kept, then renormalised (Matryoshka)."
    ),
]
Normalize = Annotated[
    bool, typer.Option("--normalize/--no-normalize", help="Scale embeddings to length one.")
]
TruncationOption = Annotated[
    Truncation,
    typer.Option(
        "--truncation",
        help="Of a text too long: keep its EOS, or lose it as the published code does.",
    ),
]


def load_model(model: str | None, **options: Any) -> Any:
    """The model for `--model` and its options; None means the default."""
    from nvembed_jax.interop import open_model

    chosen: dict[str, Any] = {
        name: value.value if isinstance(value, StrEnum) else value
        for name, value in options.items()
        if value is not None
    }
    return open_model(model, **chosen)


def usage_error(message: str) -> Exception:
    """Options that do not go together (exit code 2)."""
    return typer.BadParameter(message)
