"""Random embedders in the layout of sentence-transformers: transformers' files plus its modules."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from published_checkpoint import write_tokenizer
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch.nn import functional as F
from torch_nvembed import randomise
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

TRANSFORMER = "sentence_transformers.models.Transformer"
MODES = {"mean": "mean_tokens", "eos": "lasttoken", "cls": "cls_token"}


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2))


def write_modules(
    folder: Path, width: int, pooling: str, *, prompts: dict[str, str], max_length: int, dense: int
) -> None:
    """Module files: transformer, pooling, a dense layer (if `dense` is not 0), normalise."""
    names = ["cls_token", "mean_tokens", "max_tokens", "lasttoken"]
    modes = {f"pooling_mode_{name}": MODES[pooling] == name for name in names}
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": width, **modes})
    modules = [("", TRANSFORMER), ("1_Pooling", "sentence_transformers.models.Pooling")]
    if dense:
        modules.append(("2_Dense", "sentence_transformers.models.Dense"))
        activation = "torch.nn.modules.linear.Identity"
        sizes = {"in_features": width, "out_features": dense, "bias": True}
        write_json(folder / "2_Dense/config.json", {**sizes, "activation_function": activation})
        generator = torch.Generator().manual_seed(7)
        weight = torch.randn(dense, width, generator=generator) / width**0.5
        bias = torch.randn(dense, generator=generator) * 0.1
        tensors = {"linear.weight": weight, "linear.bias": bias}
        save_file(tensors, str(folder / "2_Dense/model.safetensors"))
    modules.append((f"{len(modules)}_Normalize", "sentence_transformers.models.Normalize"))
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", entries)
    lengths = {"max_seq_length": max_length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", lengths)
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})


def write_bert_tokenizer(folder: Path, vocab: int, max_length: int) -> Tokenizer:
    """An uncased WordPiece, trained on Python's own documentation."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator([topics[name] for name in sorted(topics)[:20]], trainer)
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    pieces = tokenizer.get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(pieces, key=pieces.get)) + "\n")
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    names |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    write_json(folder / "special_tokens_map.json", names)
    more = {"do_lower_case": True, "model_max_length": max_length}
    more |= {"tokenizer_class": "BertTokenizer"}
    write_json(folder / "tokenizer_config.json", names | more)
    return tokenizer


class SentenceFolder:
    """A random model in `folder`, and its reference: transformers' model, pooled and normalised."""

    def __init__(
        self,
        folder: Path,
        config: PretrainedConfig,
        pooling: str,
        *,
        prompts: dict[str, str] | None = None,
        max_length: int = 128,
        dense: int = 0,
    ) -> None:
        self.folder, self.pooling, self.max_length = folder, pooling, max_length
        self.model: PreTrainedModel = AutoModel.from_config(config, attn_implementation="eager")
        self.model.float().eval().requires_grad_(False)
        randomise(self.model)
        self.model.save_pretrained(folder, max_shard_size="200KB")
        vocab, width = config.vocab_size, config.hidden_size
        if config.model_type == "bert":
            self.tokenizer = write_bert_tokenizer(folder, vocab, max_length)
        else:
            self.tokenizer = write_tokenizer(folder, vocab, eos=True)
        options = {"prompts": prompts or {}, "max_length": max_length, "dense": dense}
        write_modules(folder, width, pooling, **options)

    def embed(self, texts: list[str], *, model: PreTrainedModel | None = None) -> Tensor:
        """[B, D]; a text at a time, so that nothing here is padded."""
        self.tokenizer.enable_truncation(self.max_length)
        encodings = self.tokenizer.encode_batch(texts)
        run = model or self.model
        states = [run(torch.tensor([e.ids])).last_hidden_state[0] for e in encodings]
        pool = {"mean": lambda x: x.mean(0), "eos": lambda x: x[-1], "cls": lambda x: x[0]}
        pooled = torch.stack([pool[self.pooling](x) for x in states])
        return F.normalize(pooled, dim=-1)
