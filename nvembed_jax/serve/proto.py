"""Message classes made of a .proto file when it is imported. Generated code refuses other versions
of protobuf than it was made by, and claims its message names for the whole process; these classes
do neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

_COMMENT = re.compile(r"//[^\n]*")
_TOKEN = re.compile(r'[\w.]+|"[^"]*"|\S')
_SCALARS = ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")


def message_classes(source: str, name: str) -> Mapping[str, Any]:
    """Classes of the messages at the top of a .proto file, by name.

    Args:
        source: proto3 of messages with scalar, message, repeated, map and oneof fields; services
            are passed over.
        name: of the file, for protobuf's own errors.

    Raises:
        ValueError: anything else stands in the source.
    """
    file = FileDescriptorProto(name=name, syntax="proto3")
    tokens = iter(_TOKEN.findall(_COMMENT.sub("", source)))
    for word in tokens:
        if word == "syntax":
            _expect(tokens, "=", '"proto3"', ";")
        elif word == "package":
            file.package = next(tokens)
            _expect(tokens, ";")
        elif word == "service":
            _pass_over(tokens)
        elif word == "message":
            _read_message(tokens, file.message_type.add(), f".{file.package}")
        else:
            raise ValueError(f"{name}: expected a message or a service; got {word!r}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = (message.name for message in file.message_type)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{file.package}.{name}")
        )
        for name in found
    }  # fmt: skip


def _read_message(tokens: Iterator[str], message: DescriptorProto, scope: str) -> None:
    message.name = next(tokens)
    _expect(tokens, "{")
    oneof: int | None = None
    for word in tokens:
        if word == "}":
            if oneof is None:
                return
            oneof = None
        elif word == "message":
            _read_message(tokens, message.nested_type.add(), f"{scope}.{message.name}")
        elif word == "oneof":
            oneof = len(message.oneof_decl)
            message.oneof_decl.add(name=next(tokens))
            _expect(tokens, "{")
        elif word == "map":
            _read_map(tokens, message, scope)
        else:
            field = _read_field(tokens, word, message, scope)
            if oneof is not None:
                field.oneof_index = oneof
    raise ValueError(f"message {message.name} does not end")


def _read_field(
    tokens: Iterator[str], word: str, message: DescriptorProto, scope: str
) -> FieldDescriptorProto:
    repeated = word == "repeated"
    kind = next(tokens) if repeated else word
    field = message.field.add(name=next(tokens))
    _expect(tokens, "=")
    field.number = int(next(tokens))
    _expect(tokens, ";")
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    _set_type(field, kind, message, scope)
    return field


def _read_map(tokens: Iterator[str], message: DescriptorProto, scope: str) -> None:
    """A map is a repeated message of its keys and values."""
    _expect(tokens, "<")
    key = next(tokens)
    _expect(tokens, ",")
    value = next(tokens)
    _expect(tokens, ">")
    kind = next(tokens)
    entry = message.nested_type.add(name="".join(map(str.title, kind.split("_"))) + "Entry")
    entry.options.map_entry = True
    for number, (name, type) in enumerate((("key", key), ("value", value)), 1):
        field = entry.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        _set_type(field, type, entry, scope)
    field = message.field.add(name=kind, label=FieldDescriptorProto.LABEL_REPEATED)
    _expect(tokens, "=")
    field.number = int(next(tokens))
    _expect(tokens, ";")
    _set_type(field, entry.name, message, scope)


def _set_type(field: FieldDescriptorProto, kind: str, message: DescriptorProto, scope: str) -> None:
    if kind in _SCALARS:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
        return
    field.type = field.TYPE_MESSAGE
    nested = any(inner.name == kind for inner in message.nested_type)
    inside = f"{scope}.{message.name}" if nested else "." + scope.split(".")[1]
    field.type_name = f"{inside}.{kind}"


def _expect(tokens: Iterator[str], *words: str) -> None:
    for word in words:
        if (found := next(tokens, "nothing")) != word:
            raise ValueError(f"expected {word!r} in the .proto file; got {found!r}")


def _pass_over(tokens: Iterator[str]) -> None:
    depth = 0
    for word in tokens:
        depth += (word == "{") - (word == "}")
        if word == "}" and depth == 0:
            return
