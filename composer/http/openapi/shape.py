"""What every described JSON object has in common."""

from collections.abc import Container
from typing import Any, get_type_hints

from pydantic import BaseModel, create_model

__all__ = ["Shape", "shape_of"]


class Shape(BaseModel, extra="allow"):
    """A JSON object; keys that are not named may come, too."""


def shape_of(cls: type, name: str, *, without: Container[str] = (), **fields: Any) -> type[Shape]:
    """Describe the objects that a value of ours is written as: each of its fields, always there.

    Args:
        cls: a dataclass or a named tuple.
        name: of the shape.
        without: fields that are not written.
        fields: types of those that are written otherwise than they are.
    """
    hints = {key: hint for key, hint in get_type_hints(cls).items() if key not in without}
    meaning = (cls.__doc__ or name).partition("\n")[0]
    required: dict[str, Any] = {key: (hint, ...) for key, hint in (hints | fields).items()}
    return create_model(name, __base__=Shape, __doc__=meaning, **required)
