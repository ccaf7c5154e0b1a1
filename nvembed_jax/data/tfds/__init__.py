"""Public sets as TFDS builders (array_record): registry, raw formats, builder and reading."""
