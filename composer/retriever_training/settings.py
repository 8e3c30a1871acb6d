"""How a retriever is trained."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from composer.retriever_training.lora import Lora
from experts_registry.errors import OptionError, nearest

__all__ = ["Settings", "settings_of"]


class Settings(BaseModel, extra="forbid", frozen=True):
    """How a retriever is trained."""

    side: Literal["query", "both"] = Field(
        "query",
        description="query leaves passages to the base, so that one index serves every expert; "
        "both needs an index of its own.",
    )
    lora: Lora = Field(Lora(), description="The adapter's shape.")
    learning_rate: float = Field(3e-4, gt=0, le=1, description="Of AdamW, at its highest.")
    temperature: float = Field(0.05, gt=0, le=1, description="What similarities are divided by.")
    batch_size: int = Field(32, ge=2, le=4096, description="Queries that are compared at once.")
    negatives: int = Field(4, ge=0, le=64, description="Mined passages beside each query's own.")
    shared: int = Field(
        4096,
        ge=0,
        le=100_000,
        description="Random passages that every query of a batch is compared with too; only where "
        "passages are left to the base, as their vectors then cost nothing.",
    )
    mined: int = Field(32, ge=0, le=1000, description="They are drawn from so many hardest ones.")
    ceiling: float = Field(
        0.95, gt=0, le=1, description="Share of a relevant passage's score they stay below."
    )
    steps: int = Field(300, ge=1, description="Most batches.")
    evaluate_every: int = Field(15, ge=1, description="Batches between two evaluations.")
    patience: int = Field(6, ge=1, description="Evaluations without a better one before it ends.")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="Share of the steps in which the rate rises."
    )
    share: float = Field(0.2, gt=0, le=0.5, description="Of the queries that are held out.")
    seed: int = Field(0, ge=0, description="Of everything that is drawn.")
    threads: int | None = Field(
        None, ge=1, description="Of the processor; results repeat exactly with as many."
    )


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Return settings; ``r``, ``alpha`` and ``dropout`` are those of the adapter.

    Raises:
        OptionError: one of them is unknown or out of its range.
    """
    lora = {key: value for key, value in values.items() if key in Lora.model_fields}
    rest = {key: value for key, value in values.items() if key not in lora}
    for key in rest.keys() - Settings.model_fields.keys():
        known = [*Settings.model_fields, *Lora.model_fields]
        raise OptionError(f"{key!r} is not one of {', '.join(known)}{nearest(key, known)}")
    try:
        return Settings(**rest, **({"lora": Lora(**lora)} if lora else {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise OptionError(f"{where}: {first['input']!r}: {first['msg']}") from None
