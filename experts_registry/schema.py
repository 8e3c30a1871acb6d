"""What the expert file may say: frozen pydantic models, the single source of its JSON Schema."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from experts_registry.frozen import Frozen, Name, Text
from experts_registry.retrieval_schema import ChunkSpec, IndexSpec, RetrievalSpec, StoreSpec

__all__ = [
    "ChunkSpec",
    "Composition",
    "ExpertSpec",
    "Explore",
    "Fallbacks",
    "GuardSpec",
    "IndexSpec",
    "InlineRouter",
    "Limits",
    "Offer",
    "Price",
    "RegistryFile",
    "RequestLimits",
    "Resources",
    "RetrievalSpec",
    "Select",
    "StoreSpec",
    "registry_schema",
]

Offer = Literal["text", "logprobs", "logits", "hidden", "weights", "embeddings"]


class Price(Frozen):
    """What an expert charges, in USD per million tokens."""

    prompt: float = Field(0.0, ge=0, description="USD per million prompt tokens.")
    completion: float = Field(0.0, ge=0, description="USD per million generated tokens.")

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the price of a call in USD."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


class Resources(Frozen):
    """What one replica of an expert reserves on a worker."""

    cpus: float = Field(1.0, ge=0, description="CPU cores of one replica; fractions allowed.")
    gpus: float = Field(0.0, ge=0, description="GPUs of one replica; fractions share one GPU.")
    memory_gb: float = Field(0.0, ge=0, description="Host memory of one replica; 0 reserves none.")
    replicas: int = Field(1, ge=1, le=256, description="Copies that run side by side.")


class Limits(Frozen):
    """Bounds on the calls to one expert."""

    seconds: float | None = Field(None, gt=0, description="Longest wait for the whole answer.")
    concurrency: int | None = Field(None, ge=1, description="Most calls in flight at once.")
    max_tokens: int | None = Field(
        None, ge=1, description="Tokens to generate where the caller does not say."
    )
    first_token_seconds: float | None = Field(
        None, gt=0, description="Longest wait for the first piece of a streamed answer."
    )
    queue: int = Field(
        256,
        ge=0,
        description="Most calls that wait for a turn where 'concurrency' is set; more are refused.",
    )
    retries: int = Field(
        2, ge=0, le=10, description="Further tries of a call where no other expert can be asked."
    )
    max_retry_wait: float = Field(
        30.0, ge=0, description="Longest wait before a further try; who asks for more is busy."
    )


class RequestLimits(Frozen):
    """Bounds on one request to a composition."""

    seconds: float = Field(
        600.0, gt=0, description="Longest wait for the whole answer, whoever is asked for it."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Tokens to generate where the caller does not say."
    )
    usd_per_request: float | None = Field(
        None, ge=0, description="Experts expected to cost more than this are not asked."
    )


class ExpertSpec(Frozen):
    """One registered model: an LLM that answers, or one that embeds or ranks texts."""

    name: Name = Field(description="How the expert is called everywhere.")
    kind: Literal["llm", "retriever", "reranker"] = Field(
        description="What it does: answer, embed, or score texts for a query."
    )
    backend: str = Field(
        description="What runs it: transformers, openai, sentence_transformers, "
        "cross_encoder, echo, a plug-in."
    )
    model: Text | Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        description="A hub name, path:<file or folder>, package:<import name>/<file>, "
        "or a list of such parts that are joined in order."
    )
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest of the (joined) model file; checked before it is loaded.",
    )
    enabled: bool = Field(True, description="A disabled expert stays here and is never asked.")
    offers: tuple[Offer, ...] = Field(
        (), description="What callers may ask of it; empty means all that the backend offers."
    )
    domains: tuple[str, ...] = Field(
        (),
        description="Categories it is meant for; where it has no outcomes yet, it is expected "
        "to be good at these.",
    )
    published: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {},
        description="Published scores by category, or under 'overall'; believed a little where it "
        "has no outcomes yet.",
    )
    active_params: float | None = Field(
        None, gt=0, description="Parameters used per token, for example 0.49e9."
    )
    resources: Resources = Field(Resources(), description="What one replica reserves.")
    price: Price = Field(Price(), description="What a call costs.")
    context_window: int | None = Field(
        None, ge=1, description="Most tokens of prompt and answer together."
    )
    limits: Limits = Field(Limits(), description="Bounds on its calls.")
    options: dict[str, Any] = Field({}, description="Settings of the backend, which checks them.")
    tags: dict[str, str] = Field({}, description="Free labels: region, licence ...")

    @property
    def sources(self) -> tuple[str, ...]:
        """The model as parts to join; one part in the common case."""
        return (self.model,) if isinstance(self.model, str) else self.model


class GuardSpec(Frozen):
    """When a router may deviate from the composition's baseline."""

    confidence: float = Field(
        0.95, ge=0.5, lt=1, description="How sure one must be that deviating loses no quality."
    )
    tolerance: float = Field(
        0.0, ge=0, le=1, description="Quality that may be lost where the other expert is cheaper."
    )
    premium: float = Field(
        0.01, ge=0, le=1, description="Quality that an expert dearer than the baseline must add."
    )


class Explore(Frozen):
    """Ask another expert now and then, to learn how good it is by now."""

    method: Literal["thompson", "ucb"] = Field("thompson", description="How it is chosen.")
    rate: float = Field(0.05, gt=0, le=1, description="Share of the requests that explore.")
    usd_per_day: float = Field(
        1.0, ge=0, description="Most that exploring may add to the bill in a day (UTC)."
    )


class Select(BaseModel):
    """How predicted qualities become a choice; further keys are the policy's settings."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    # YAML reads an unquoted null as nothing; here it can only mean the policy of that name.
    policy: Annotated[str, BeforeValidator(lambda name: "null" if name is None else name)] = Field(
        "top-1", description="Selection policy."
    )
    cost_weight: float | None = Field(
        None,
        ge=0,
        description="Quality given up for the dearest expert's mean cost; "
        "by default the router's own.",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="What scores are divided by before policies read them as probabilities; "
        "by default as calibrated on held-out outcomes.",
    )
    neighbours: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the router's own view beside that of the nearest solved queries.",
    )
    balance: float = Field(
        0.0, ge=0, description="Quality given up to spread the traffic evenly; 0 does not."
    )
    guard: GuardSpec | Literal[False] = Field(
        GuardSpec(), description="Deviate from the baseline only on evidence; false does not guard."
    )


class InlineRouter(BaseModel):
    """A router fitted when the file is loaded; further keys are its hyperparameters."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    type: str = Field(description="A router's registered name, for example best or category.")
    outcomes: str | None = Field(None, description="Outcomes to fit on, relative to this file.")


class Fallbacks(Frozen):
    """Experts to ask, in this order, where one fails; none is asked twice for one request."""

    any: tuple[str, ...] = Field(
        (), description="After any failure; by default the next best of the composition."
    )
    context_length: tuple[str, ...] = Field(
        (), description="After a prompt was too long for an expert, before those under 'any'."
    )
    content_policy: tuple[str, ...] = Field(
        (), description="After an expert's content filter refused; by default nobody."
    )

    @property
    def experts(self) -> tuple[str, ...]:
        """All that are named."""
        return tuple(dict.fromkeys([*self.any, *self.context_length, *self.content_policy]))


class Composition(Frozen):
    """Several experts behind one model name."""

    name: Name = Field(description="The model name that callers use.")
    experts: tuple[str, ...] = Field((), description="Its experts; empty means every enabled LLM.")
    router: str | InlineRouter | None = Field(
        None, description="Folder of a trained router, or {type: ..., outcomes: ...}."
    )
    select: Select = Field(Select(), description="How predictions become a choice.")
    baseline: str | None = Field(
        None,
        description="The expert to beat: asked as long as no router is trained, and left only on "
        "evidence afterwards.",
    )
    explore: Explore | None = Field(None, description="Explore; by default never.")
    strategy: str = Field("single", description="How answers are composed.")
    fallbacks: Fallbacks = Field(Fallbacks(), description="Whom to ask where an expert fails.")
    retrieval: RetrievalSpec | None = Field(None, description="Retrieve before answering.")
    limits: RequestLimits = Field(RequestLimits(), description="Bounds on one request.")


class RegistryFile(Frozen):
    """The whole file."""

    version: Literal[1] = Field(description="Version of this format.")
    encoder: str | None = Field(None, description="The retriever whose embeddings routers read.")
    experts: tuple[ExpertSpec, ...] = Field((), description="The experts.")
    stores: tuple[StoreSpec, ...] = Field((), description="Collections of passages.")
    compositions: tuple[Composition, ...] = Field((), description="Model names over experts.")
    feedback: str | None = Field(
        None,
        description="Where feedback is kept: an SQLite file relative to this file, or a database "
        "URL; by default feedback.db beside this file.",
    )
    keys: str | None = Field(
        None,
        description="Where API keys and their spending are kept, written like 'feedback'; by "
        "default keys.db beside this file.",
    )
    decisions: str | None = Field(
        None,
        description="Where the decision log is kept, written like 'feedback'; by default "
        "decisions.db beside this file.",
    )


def registry_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors to complete and check it with."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RegistryFile.model_json_schema(),
        "title": "expert-composer registry",
    }
