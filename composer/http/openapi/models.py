"""GET /v1/models and /v1/models/{id}."""

from typing import Literal

from pydantic import Field

from composer.http.openapi.operation import READING, Operation
from composer.http.openapi.shape import Shape

__all__ = ["MODEL", "MODELS"]


class Model(Shape):
    """A name that may stand under `model`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: str = Field(description="`llm`, `retriever`, `composition` or `router`.")


class ListModelsResponse(Shape):
    """The names that the caller may ask for."""

    object: Literal["list"]
    data: list[Model]


MODELS = Operation(id="listModels", summary="List the models.", answer=ListModelsResponse)
MODEL = Operation(
    id="retrieveModel", summary="Tell of one model.", answer=Model, errors=(*READING, 404)
)
