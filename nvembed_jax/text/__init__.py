"""Texts to token ids: instructions, tokenizers, packing, chunks of long documents. No jax here."""
