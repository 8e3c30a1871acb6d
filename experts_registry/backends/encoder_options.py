"""What ``options:`` of an embedding model in this process may hold."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

__all__ = ["Options"]


class Options(BaseModel, extra="forbid", frozen=True):
    """What ``options:`` may hold for this backend."""

    query_prompt: str | None = Field(
        None, description="Put before every query; by default what the model says."
    )
    passage_prompt: str | None = Field(
        None, description="Put before every passage; by default what the model says."
    )
    adapter: str | None = Field(
        None, description="path:<folder> of a LoRA adapter for the model, in PEFT's format."
    )
    adapts: Literal["query", "both"] = Field(
        "query",
        description="What goes through the adapter. Passages that do not are embedded as the "
        "model does: adapters then share its index.",
    )
    layers: int | None = Field(
        None,
        ge=0,
        description="Run only the lowest of the model's layers: a cheap encoder to route with. 0 "
        "pools the input embeddings.",
    )
    max_length: int | None = Field(
        None, ge=1, description="Tokens of a text that are read; by default what the model says."
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Texts that are embedded together.")
    device: str = Field("auto", description="auto (the GPU if there is one), cpu, cuda, cuda:1.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Of the weights; the vectors are float32."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    matryoshka: bool = Field(
        False,
        description="The model was trained to be shortened: requests may ask for the first few "
        "dimensions.",
    )

    @model_validator(mode="after")
    def _adapts_an_adapter(self) -> Self:
        if self.adapter is None and "adapts" in self.model_fields_set:
            raise ValueError("adapts says what an adapter is for; name it as adapter, or remove it")
        return self
