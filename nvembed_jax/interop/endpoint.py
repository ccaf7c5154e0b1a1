"""What a remote model is: where it answers, what is sent there, and how it is written in one line:
FLAVOUR:[URL#]MODEL[?option=value&...], e.g. nim:http://localhost:8000/v1#nvidia/nv-embedqa-e5-v5.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

# What an option is unless it is given. Limits: OpenAI takes 2,048 texts and 300,000 tokens a
# request, Gemini 100 texts, TEI 32 by default, NIM by its profile; a byte-level token can be less
# than a character, so the character limits leave room.
FLAVORS: dict[str, dict[str, Any]] = {
    "openai": {"url": "https://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY",
               "texts_a_request": 256, "blank_as_space": True},
    "gemini": {"url": "https://generativelanguage.googleapis.com/v1beta/openai",
               "api_key_env": "GEMINI_API_KEY", "texts_a_request": 100,
               "encoding_format": "float", "blank_as_space": True},
    "nim": {"url": "https://integrate.api.nvidia.com/v1", "api_key_env": "NVIDIA_API_KEY",
            "texts_a_request": 50, "encoding_format": "float", "input_types": True,
            "truncate": "END"},
    "nvembed": {"texts_a_request": 64, "input_types": True, "truncate": "END", "send_task": True},
    "tei": {"texts_a_request": 32, "model": "default"},
    "vllm": {"texts_a_request": 128, "extra_body": {"truncate_prompt_tokens": -1}},
}  # fmt: skip
KEY_ENV = "NVEMBED_REMOTE_API_KEY"  # of endpoints other than a flavour's public one
TRUNCATIONS = ("NONE", "START", "END")
INPUT_TYPES = ("query", "passage")
_NO_EFFECT = frozenset(  # on embeddings; all else is in the fingerprint
    {"base_url", "api_key_env", "api_key_header", "texts_a_request", "chars_a_request",
     "concurrency", "timeout_s", "max_retries", "backoff_s", "encoding_format"}
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A model behind `POST {base_url}/embeddings`. Make one with `make_endpoint` or `parse_spec`.

    Attributes:
        base_url: up to /v1; /embeddings is added. model: its name there.
        flavor: one of `FLAVORS`.
        api_key_env: the environment variable that holds the key; None: no key is sent.
        api_key_header: "Authorization" (Bearer), or the name of another header.
        dimensions: asked of the server (Matryoshka); None: the model's own.
        encoding_format: "base64" or "float"; whatever comes back is understood.
        truncate: what the server does with a text too long, one of `TRUNCATIONS`; None: not sent.
        input_types: send `input_type` (query or passage), as NIM wants it.
        symmetric: the input type of texts of symmetric tasks.
        send_task: send the task description in the field `task`.
        query_template: with a {task} slot, for models that read instructions in the text.
        query_prefix, passage_prefix, symmetric_prefix: raw prefixes of queries, of passages, and
            of the texts of symmetric tasks.
        blank_as_space: an empty text, which some servers refuse, is sent as a space.
        chars_a_text: longer texts are cut; None: all of a text is sent.
        revision: any name; part of the fingerprint. Change it when the model behind the URL does.
        extra_body: further fields of every request.
        texts_a_request, chars_a_request: of one request at most. concurrency: requests at a time.
        timeout_s: for one answer. max_retries: after 408, 409, 429, 5xx, lost connections.
        backoff_s: before the first retry; doubled each time, unless the server says Retry-After.
    """

    base_url: str
    model: str
    flavor: str
    api_key_env: str | None = None
    api_key_header: str = "Authorization"
    dimensions: int | None = None
    encoding_format: str = "base64"
    truncate: str | None = None
    input_types: bool = False
    symmetric: str = "query"
    send_task: bool = False
    query_template: str | None = None
    query_prefix: str = ""
    passage_prefix: str = ""
    symmetric_prefix: str = ""
    blank_as_space: bool = False
    chars_a_text: int | None = None
    revision: str = ""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    texts_a_request: int = 64
    chars_a_request: int = 200_000
    concurrency: int = 4
    timeout_s: float = 120.0
    max_retries: int = 6
    backoff_s: float = 1.0

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        for name in ("texts_a_request", "chars_a_request", "concurrency", "dimensions",
                     "chars_a_text"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if self.max_retries < 0 or self.timeout_s <= 0 or self.backoff_s < 0:
            raise ValueError(
                f"max_retries and backoff_s must not be negative, and timeout_s over 0; got "
                f"{self.max_retries}, {self.backoff_s} and {self.timeout_s}"
            )
        if self.query_template is not None and "{task}" not in self.query_template:
            raise ValueError(
                f"query_template needs a {{task}} slot; got {self.query_template!r} (a prefix "
                f"without one is query_prefix)"
            )
        for name, known in (("encoding_format", ("base64", "float")), ("symmetric", INPUT_TYPES),
                            ("truncate", (*TRUNCATIONS, None))):  # fmt: skip
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}; got {getattr(self, name)!r}")

    @property
    def host(self) -> str:
        """Host, port and path of the URL."""
        parts = urlsplit(self.base_url)
        return parts.netloc + parts.path.rstrip("/")

    @property
    def identity(self) -> dict[str, Any]:
        """Plain values of all that decides an embedding; no key is among them."""
        facts = dataclasses.asdict(self) | {"extra_body": dict(self.extra_body)}
        return {"host": self.host, **{k: v for k, v in facts.items() if k not in _NO_EFFECT}}

    @property
    def fingerprint(self) -> str:
        """A hash of `identity`."""
        text = json.dumps(self.identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def api_key(self) -> str | None:
        """The key, from the environment.

        Raises:
            ValueError: the variable is not set, and is not just the default of a server of one's
                own, or holds what no header can.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and self.api_key_env != KEY_ENV:
            raise ValueError(f"{self.host} needs an API key: set ${self.api_key_env}")
        if not key.isascii() or not key.isprintable():
            raise ValueError(f"${self.api_key_env} holds no API key: it has odd characters")
        return key or None


def make_endpoint(flavor: str, model: str, base_url: str | None = None, **options: Any) -> Endpoint:
    """An endpoint with the flavour's own values for what is not given.

    Raises:
        ValueError: an unknown flavour or option (nearest name shown), no URL, a value out of range.
    """
    if flavor not in FLAVORS:
        raise ValueError(f"unknown flavour {_with_nearest(flavor, FLAVORS)}")
    own = dict(FLAVORS[flavor])
    public, model = own.pop("url", None), model or own.get("model", "")
    own.pop("model", None)
    if base_url is None and public is None:
        raise ValueError(f"{flavor} has no public URL: expected {flavor}:URL#{model or 'MODEL'}")
    if not model:
        raise ValueError(f"no model named: expected {flavor}:{base_url or public}#MODEL")
    url = (base_url or public or "").rstrip("/")
    if url != public:  # a public service's key goes to that service only
        own["api_key_env"] = KEY_ENV
    known = {f.name for f in dataclasses.fields(Endpoint)} - {"base_url", "model", "flavor"}
    for name in options.keys() - known:
        raise ValueError(f"unknown option of a remote model {_with_nearest(name, known)}")
    return Endpoint(base_url=url, model=model, flavor=flavor, **own | options)


def is_remote(spec: Any) -> bool:
    """Whether a model's name is that of a remote one: FLAVOUR:..."""
    flavor, colon, _ = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    return bool(colon) and flavor in FLAVORS


def parse_spec(spec: str) -> tuple[str, str, str | None, dict[str, Any]]:
    """(flavour, model, URL or None, options) of FLAVOUR:[URL#]MODEL[?option=value&...].

    Values are percent-decoded, and \\n in them is a line break; `body.NAME=VALUE` adds a field to
    every request, its value JSON where it is that, else a string.

    Raises:
        ValueError: what cannot be read, or an option without a value.
    """
    if not is_remote(spec):
        raise ValueError(f"{spec!r} names no remote model: expected FLAVOUR:[URL#]MODEL, the "
                         f"flavour one of {', '.join(FLAVORS)}")  # fmt: skip
    flavor, _, rest = spec.partition(":")
    rest, _, query = rest.partition("?")
    url, sharp, model = rest.partition("#")
    if not sharp and not rest.startswith(("http://", "https://")):
        url, model = "", rest
    options: dict[str, Any] = {}
    for part in query.split("&") if query else []:
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{spec!r}: the option {part!r} has no value; expected NAME=VALUE")
        value = unquote(value).replace("\\n", "\n")
        if name.startswith("body."):
            options.setdefault("extra_body", {})[name[5:]] = _json_or_text(value)
        else:
            options[name] = _typed(name, value)
    return flavor, model, url or None, options


def _typed(name: str, value: str) -> Any:
    """The value of an option as the type of its field."""
    types = {f.name: str(f.type) for f in dataclasses.fields(Endpoint)}
    kind = types.get(name, "str").removesuffix(" | None")
    try:
        if kind == "bool":
            return {"0": False, "1": True, "false": False, "true": True}[value.lower()]
        return {"int": int, "float": float}.get(kind, str)(value)
    except (KeyError, ValueError):
        wanted = {"int": "a whole number", "float": "a number"}.get(kind, "true or false")
        raise ValueError(f"the option {name} takes {wanted}; got {value!r}") from None


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the URL of a remote model must be http(s)://HOST/...; got {url!r}")
    if parts.username or parts.password:
        raise ValueError("the URL of a remote model must not hold a password; use api_key_env")
    if parts.query or parts.fragment:
        raise ValueError(f"the URL of a remote model must end with its path; got {url!r}")
    if parts.path.rstrip("/").endswith("/embeddings"):
        raise ValueError(f"the URL of a remote model ends before /embeddings; got {url!r}")


def _with_nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    mend = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
    return f"{name!r}; {mend}"
