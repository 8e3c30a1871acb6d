"""Run a language model in this process, with Hugging Face transformers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, Field, field_validator

from experts_registry.backends.chat_templates import ChatFormat
from experts_registry.backends.decoding import Job, TextBuilder, decode, token_logprobs
from experts_registry.backends.formats import Formats
from experts_registry.backends.local_models import LoadedModel, computing, load_model
from experts_registry.backends.options import check_offers, closed, parse_options, refuse
from experts_registry.backends.several import joined, remaining
from experts_registry.backends.steering import steering_of
from experts_registry.backends.tokens import text_of
from experts_registry.batching import Batcher
from experts_registry.errors import (
    ComposerError,
    ContextLengthError,
    ExpertReplyError,
    OptionError,
)
from experts_registry.schema import ExpertSpec
from experts_registry.types import Chunk, FloatArray, Generation, Prompt, TokenLogprob

__all__ = ["Options", "TransformersLLM"]

T = TypeVar("T")

DEFAULT_MAX_TOKENS = 256
SHORT_PROMPT = 6  # Bits: prompts of up to 63 tokens share a batch.


class Options(BaseModel, extra="forbid", frozen=True):
    """What ``options:`` may hold for this backend."""

    device: str = Field("auto", description="auto (the GPU if there is one), cpu, cuda, cuda:1.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of the weights; auto is float32 on a CPU and bfloat16 elsewhere."
    )
    max_batch: int = Field(8, ge=1, le=1024, description="Most prompts that are decoded together.")
    window: float = Field(
        0.005, ge=0, le=10, description="Seconds that a prompt waits for company."
    )
    prompt_template: str | None = Field(
        None,
        description="For models without a chat template: a text with {prompt} in it, which is "
        "replaced by the texts of the conversation.",
    )
    system: str | None = Field(None, description="System message of conversations that have none.")
    stop: tuple[str, ...] = Field((), description="Texts that end every answer.")
    adapter: str | None = Field(
        None, description="LoRA adapter, named as a model is; merged into the weights."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    attn_implementation: str | None = Field(
        None, description="Attention kernel, for example sdpa, eager or flash_attention_2."
    )

    @field_validator("prompt_template")
    @classmethod
    def _has_place(cls, value: str | None) -> str | None:
        if value is not None and "{prompt}" not in value:
            raise ValueError("has no place for the question; write {prompt} where it goes")
        return value


class TransformersLLM:
    """A causal language model in this process.

    It is loaded at the first call. One thread reads prompts, another decodes; calls that wait for
    it share a batch.
    Without a temperature it is greedy; sampling settings that come with a model are not used.
    """

    offers: tuple[str, ...] = ("text", "logprobs", "hidden")

    def __init__(self, spec: ExpertSpec) -> None:
        self.spec = spec
        self.options = parse_options(Options, spec)
        self._offers = check_offers(spec, self.offers)
        self._where = f"expert {spec.name!r}"
        self._lock = threading.Lock()
        # Not the loop's own threads: calls that wait for a model to load would fill them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._where)
        self._loaded: tuple[LoadedModel, ChatFormat, Formats] | None = None
        self._batcher: Batcher[Job, Generation] = Batcher(
            self._decode,
            where=self._where,
            max_batch=self.options.max_batch,
            window=self.options.window,
        )

    @property
    def tier(self) -> Literal["disk", "host", "device"]:
        """Where the weights are."""
        if (loaded := self._loaded) is None:
            return "disk"
        return "host" if loaded[0].model.device.type == "cpu" else "device"

    def load(self) -> None:
        """Load the model now instead of at the first call."""
        self._ready()

    async def generate(self, prompt: Prompt) -> Generation:
        """Answer a prompt."""
        jobs = await self._prepare(self._jobs, prompt)
        try:
            answers = [asyncio.wrap_future(self._submit(job)) for job in jobs]
            return joined(await asyncio.gather(*answers), prompts=1)
        finally:
            _cancel(jobs)

    async def stream(self, prompt: Prompt) -> AsyncIterator[Chunk]:
        """Answer a prompt piece by piece; several answers side by side."""
        jobs = await self._prepare(self._jobs, prompt)
        pieces = _Pieces(asyncio.get_running_loop(), jobs)
        try:
            answers = [self._submit(job) for job in jobs]
            for answer in answers:
                answer.add_done_callback(pieces.end)
            async for chunk in pieces:
                yield chunk
            yield Chunk("", joined([answer.result() for answer in answers], prompts=1))
        finally:
            _cancel(jobs)

    async def logprobs(self, prompt: Prompt, continuation: str) -> tuple[TokenLogprob, ...]:
        """Return the log-probability of every token of an answer that is given."""
        self._require("logprobs")
        return await self._prepare(self._score, prompt, continuation)

    async def hidden(self, prompt: Prompt, *, layers: Sequence[int] = (-1,)) -> FloatArray:
        """Return hidden states of the prompt, (layers, tokens, width) float32.

        Args:
            prompt: the conversation, rendered as for an answer.
            layers: which; 0 is the embedding, -1 the last.
        """
        self._require("hidden")
        return await self._prepare(self._hidden, prompt, layers)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text that these tokens of the model's stand for.

        Raises:
            OptionError: one of them is not the model's.
        """
        loaded, *_ = self._ready()
        return text_of(self._where, loaded.tokenizer, tokens)

    async def aclose(self) -> None:
        """Stop decoding and free the model."""
        await asyncio.to_thread(self._close)

    # -- inside ---------------------------------------------------------------------------------

    async def _prepare(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _close(self) -> None:
        self._batcher.close()
        with self._lock:
            self._loaded = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _require(self, capability: str) -> None:
        if capability not in self._offers:
            raise refuse(self.spec, capability, self._offers)

    def _ready(self) -> tuple[LoadedModel, ChatFormat, Formats]:
        with self._lock:
            if self._batcher.is_closing:
                raise closed(self.spec)
            if self._loaded is None:
                options = self.options
                model = load_model(
                    self.spec,
                    device=options.device,
                    dtype=options.dtype,
                    adapter=options.adapter,
                    revision=options.revision,
                    trust_remote_code=options.trust_remote_code,
                    attn_implementation=options.attn_implementation,
                )
                chat = ChatFormat(
                    self.spec,
                    model.tokenizer,
                    window=model.window,
                    template=options.prompt_template,
                    system=options.system,
                )
                self._loaded = model, chat, Formats(self.spec, model)
            return self._loaded

    def _jobs(self, prompt: Prompt) -> list[Job]:
        """Return one job an answer; each draws with a seed of its own."""
        if prompt.sampling.logprobs:
            self._require("logprobs")
        loaded, chat, formats = self._ready()
        ids = chat.encode(prompt)
        default = self.spec.limits.max_tokens or DEFAULT_MAX_TOKENS
        room = prompt.limited(max_tokens=default).sampling.max_tokens or 0
        if loaded.window is not None:
            room = min(room, loaded.window - len(ids))
        jobs = []
        for index in range(prompt.sampling.n):
            sampling = replace(remaining(prompt, index, n=1).sampling, max_tokens=room)
            text = TextBuilder(loaded.tokenizer, (*self.options.stop, *sampling.stop))
            matcher = formats.matcher(prompt.extra.get("response_format"))
            steering = steering_of(prompt.extra, matcher, len(loaded.tokenizer))
            jobs.append(Job(ids, sampling, text, steering))
        return jobs

    def _submit(self, job: Job) -> "Future[Generation]":
        if not job.sampling.max_tokens:  # nothing may be said
            job.finish_reason = "length"
            done: Future[Generation] = Future()
            done.set_result(job.generation())
            return done
        # Prompts of similar length together: padding then at most doubles the work.
        return self._batcher.submit(job, key=max(SHORT_PROMPT, len(job.ids).bit_length()))

    def _decode(self, jobs: list[Job]) -> list[Generation | ComposerError]:
        wanted = [job for job in jobs if not job.is_cancelled]
        if wanted:
            loaded, *_ = self._ready()
            with computing(self.spec):
                decode(loaded, wanted, lambda: self._batcher.is_closing)
        return [self._result(job) for job in jobs]

    def _result(self, job: Job) -> Generation | ComposerError:
        if job.is_broken:
            return ExpertReplyError(
                f"{self._where}: the model computed NaN; use options.dtype bfloat16 or float32"
            )
        if job.finish_reason in ("", "cancelled"):
            return closed(self.spec)
        return job.generation()

    def _score(self, prompt: Prompt, continuation: str) -> tuple[TokenLogprob, ...]:
        loaded, chat, _ = self._ready()
        ids = chat.encode(prompt)
        answer = loaded.tokenizer.encode(continuation, add_special_tokens=False)
        if not answer:
            return ()
        if loaded.window is not None and len(ids) + len(answer) > loaded.window:
            raise ContextLengthError(
                f"{self._where}: prompt and continuation have {len(ids)} + {len(answer)} tokens "
                f"and the context window {loaded.window}; shorten them"
            )
        with computing(self.spec):
            # One row of logits comes before each token; the last row predicts what follows.
            output = loaded.model(
                torch.tensor([ids + answer], device=loaded.model.device),
                logits_to_keep=len(answer) + 1,
            )
            return tuple(token_logprobs(loaded.tokenizer, output.logits[0, :-1], answer))

    def _hidden(self, prompt: Prompt, layers: Sequence[int]) -> FloatArray:
        loaded, chat, _ = self._ready()
        ids = torch.tensor([chat.encode(prompt)], device=loaded.model.device)
        with computing(self.spec):
            states = loaded.model.base_model(ids, output_hidden_states=True).hidden_states
            if wrong := [layer for layer in layers if not -len(states) <= layer < len(states)]:
                raise OptionError(
                    f"layers: {self._where} has no layer {wrong[0]}; use 0 to {len(states) - 1}"
                )
            chosen = torch.stack([states[layer][0] for layer in layers])
            values: FloatArray = chosen.float().cpu().numpy()  # (layers, tokens, width)
            return values


class _Pieces:
    """Chunks of the answers of one call, from the thread that decodes to the loop that waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, jobs: Sequence[Job]) -> None:
        self._queue: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self._loop = loop
        self._jobs = jobs
        for index, job in enumerate(jobs):
            job.emit = partial(self._emit, index)

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for _ in self._jobs:
            while (chunk := await self._queue.get()) is not None:
                yield chunk

    def end(self, _: object) -> None:
        """Note that one of the answers is complete."""
        self._post(None)

    def _emit(self, index: int, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        self._post(Chunk(text, index=index, logprobs=logprobs or None))

    def _post(self, chunk: Chunk | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, chunk)
        except RuntimeError:  # The loop was closed: nobody listens any more.
            _cancel(self._jobs)


def _cancel(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.is_cancelled = True
