"""What is wrong with data that a pydantic model refused, in words."""

from __future__ import annotations

from pydantic import ValidationError

from engine.checks import shown


def explained(error: ValidationError) -> tuple[str, str]:
    """The place of the first thing that is wrong, and what was found and expected there."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return place, "there is no such key"
    if first["type"] in ("dataclass_type", "model_type", "model_attributes_type"):
        return place, f"found {shown(first['input'])}, expected a table of keys and values"
    if first["type"] == "value_error":
        return place, str(first["ctx"]["error"])
    return place, f"found {shown(first['input'])}; {first['msg'][:1].lower()}{first['msg'][1:]}"
