"""Frozen dataclasses as JSON documents and back, exactly; what enters is checked at the border."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from luthier.errors import SpecError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def to_text(value: DataclassInstance, schema: str) -> str:
    """An object with `schema` and the fields of `value`, nested ones included, as JSON text with a line end."""
    return json.dumps({"schema": schema, **asdict(value)}, indent=1) + "\n"


def from_text(kind: type[T], text: str, schema: str, origin: str) -> T:
    """Read what `to_text` wrote; unknown keys and wrong types are refused.

    Args:
        kind: the dataclass.
        schema: what the document must call itself.
        origin: file name for the message.
    Raises:
        SpecError: not JSON, another schema, or a field that is missing, unknown or out of range.
    Example:
        >>> from luthier.arch.block import Precision
        >>> from_text(Precision, to_text(Precision(weight="int8"), "p/1"), "p/1", "p.json")
        Precision(weight='int8', activation='fp32')
    """
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise SpecError(f"{origin}: not JSON ({error})") from None
    return from_fields(kind, document, schema, origin)


def from_fields(kind: type[T], document: Any, schema: str, origin: str) -> T:
    """The same from what a parser of JSON or TOML made of a file.

    Raises:
        SpecError: another schema, or a field that is missing, unknown or out of range.
    """
    # pydantic is slow to import; only a file at the border pays for it
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(document, dict) or document.get("schema") != schema:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise SpecError(f"{origin}: expected schema {schema!r}, got {found!r}; written by another version?")
    fields = {key: value for key, value in document.items() if key != "schema"}
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or kind.__name__.lower()
        raise SpecError(f"{origin}: {where}: {first['msg']}, got {str(first.get('input'))[:80]!r}") from None
