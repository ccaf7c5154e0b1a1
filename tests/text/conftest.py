"""The real Mistral tokenizer, read from the SentencePiece file that a package ships."""

from __future__ import annotations

import pytest
from published_nvembed import MISTRAL

from nvembed_jax.config import nv_embed_v2
from nvembed_jax.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def mistral_tokenizer(tmp_path_factory) -> Tokenizer:
    """Mistral-7B-v0.1's tokenizer with NV-Embed's text rules."""
    folder = tmp_path_factory.mktemp("mistral")
    (folder / "tokenizer.model").write_bytes(MISTRAL.read_bytes())
    return Tokenizer.from_folder(folder, nv_embed_v2().text)
