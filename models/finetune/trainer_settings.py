"""Settings that fine-tuning and distillation share, and their checks."""

from __future__ import annotations

from typing import Any, Protocol


class TrainerSettings(Protocol):
    """Settings that fine-tuning and distillation share."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_ratio(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def patience(self) -> int: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def bfloat16(self) -> bool: ...
    @property
    def minutes(self) -> float: ...
    @property
    def seed(self) -> int: ...


def check_trainer_settings(settings: Any) -> None:
    """Check the settings that all training runs share. Raises ValueError for a value out of range."""
    check_minimums(
        settings, epochs=1, batch_size=1, max_tokens=0, patience=1, evaluations=1, validation_groups=1,
        validation_texts=2, minutes=0, weight_decay=0,
    )  # fmt: skip
    if settings.learning_rate <= 0:
        raise ValueError(f"learning_rate is {settings.learning_rate}; expected more than 0")
    for name in ("warmup_ratio", "validation_share"):
        if not 0 <= getattr(settings, name) < 1:
            raise ValueError(f"{name} is {getattr(settings, name)}; expected 0 to less than 1")


def check_minimums(settings: Any, **minimums: float) -> None:
    """Check lower bounds (setting name -> minimum). Raises ValueError for a setting below its minimum."""
    for name, value in minimums.items():
        if getattr(settings, name) < value:
            raise ValueError(f"{name} is {getattr(settings, name)}; expected at least {value}")
