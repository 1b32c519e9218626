"""Turn a pydantic ValidationError into a short message."""

from __future__ import annotations

from pydantic import ValidationError

from feedrank.engine.events.checks import short_repr


def first_error(error: ValidationError) -> tuple[str, str]:
    """Return the path of the first invalid value, such as serve.port, and what was found and expected there."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return path, "there is no such key"
    if first["type"] in ("dataclass_type", "model_type", "model_attributes_type"):
        return path, f"found {short_repr(first['input'])}, expected a table of keys and values"
    if first["type"] == "value_error":
        return path, str(first["ctx"]["error"])
    return path, f"found {short_repr(first['input'])}; {first['msg'][:1].lower()}{first['msg'][1:]}"
