"""Decode a batch of prompts together: each row samples, stops and streams on its own."""

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from experts_registry.backends.local_models import LoadedModel
from experts_registry.backends.steering import Steering
from experts_registry.types import Generation, Sampling, TokenLogprob, Usage

__all__ = ["Job", "TextBuilder", "decode", "token_logprobs"]

EMIT_EVERY = 0.03  # Seconds: sending every token alone costs more than making it.
COLDEST = 1e-4  # Below this temperature the division overflows; it is greedy anyway.


class TextBuilder:
    """The text of a growing list of tokens, up to the first stop string.

    A character may take several tokens, so text is added only once it can no longer change.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(s for s in stop if s)
        self._ids: list[int] = []
        self._start = self._end = 0  # ids[start:end] are in the text, and context for what follows
        self.sent = 0
        self.text = ""
        self.is_stopped = False

    def add(self, token: int) -> None:
        """Add a token."""
        self._ids.append(token)
        known, both = self._decode(self._end), self._decode(None)
        # An unfinished character decodes to U+FFFD until its last token is there.
        if len(both) > len(known) and not both.endswith("\ufffd"):
            self._append(both[len(known) :])
            self._start, self._end = self._end, len(self._ids)

    def finish(self) -> None:
        """Add what was held back: no further token will complete it."""
        if not self.is_stopped:
            self._append(self._decode(None)[len(self._decode(self._end)) :])

    def take(self, *, is_final: bool = False) -> str:
        """Return the text that was not taken yet and cannot turn out to be a stop string."""
        end = len(self.text) if is_final or self.is_stopped else len(self.text) - self._held()
        new = self.text[self.sent : end]
        self.sent = max(self.sent, end)
        return new

    def _decode(self, end: int | None) -> str:
        ids = self._ids[self._start : end]
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _append(self, new: str) -> None:
        # A stop string may have begun in the text before.
        begin = max(0, len(self.text) - max(map(len, self._stop), default=0))
        self.text += new
        hits = [hit for s in self._stop if (hit := self.text.find(s, begin)) >= 0]
        if hits:
            self.text, self.is_stopped = self.text[: min(hits)], True

    def _held(self) -> int:
        """Return how many characters at the end may be the beginning of a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        tails = range(min(longest, len(self.text)), 0, -1)
        return next((n for n in tails if any(s.startswith(self.text[-n:]) for s in self._stop)), 0)


@dataclass(eq=False)
class Job:
    """One row of a batch.

    Args:
        ids: the tokens of the prompt.
        sampling: how to draw; ``max_tokens`` is set.
        text: collects the answer.
        steering: what moves its logits, if anything does.
        emit: gets the text as it grows and the tokens that end in it, from the decoding thread.
        is_cancelled: set by the caller to stop this row within one step.
    """

    ids: list[int]
    sampling: Sampling
    text: TextBuilder
    steering: Steering | None = None
    emit: Callable[[str, tuple[TokenLogprob, ...]], None] | None = None
    is_cancelled: bool = False
    finish_reason: str = ""
    tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # of each token in the text
    told: int = 0  # log-probabilities that were emitted
    is_broken: bool = False
    emitted: float = 0.0

    def generation(self) -> Generation:
        """Return the answer so far."""
        return Generation(
            text=self.text.text,
            usage=Usage(prompt_tokens=len(self.ids), completion_tokens=self.tokens),
            finish_reason=self.finish_reason or "stop",
            logprobs=tuple(self.logprobs) if self.sampling.logprobs else None,
        )


def decode(loaded: LoadedModel, jobs: Sequence[Job], is_closing: Callable[[], bool]) -> None:
    """Decode until every job is finished or cancelled."""
    width = max(len(job.ids) for job in jobs)
    padded = [[loaded.pad_id] * (width - len(job.ids)) + job.ids for job in jobs]
    masked = [[0] * (width - len(job.ids)) + [1] * len(job.ids) for job in jobs]
    sampler = _Sampler(jobs, loaded.model.device)
    loaded.model.generate(
        input_ids=torch.tensor(padded, device=loaded.model.device),
        attention_mask=torch.tensor(masked, device=loaded.model.device),
        max_new_tokens=max(job.sampling.max_tokens or 1 for job in jobs),
        logits_processor=LogitsProcessorList([sampler]),
        stopping_criteria=StoppingCriteriaList([_Progress(jobs, loaded, sampler, is_closing)]),
    )


class _Sampler(LogitsProcessor):
    """Lets a greedy search sample, each row with its own temperature, nucleus and seed.

    The argmax of ``log p + Gumbel noise`` is a sample of p (Gumbel-max trick; Maddison, Tarlow,
    Minka, "A* Sampling", https://arxiv.org/abs/1411.0030), so rows of any kind share a batch and
    a seeded row does not depend on its company.
    """

    def __init__(self, jobs: Sequence[Job], device: torch.device) -> None:
        self._jobs = jobs
        self._generators = [_generator(job.sampling, device) for job in jobs]
        self.logits = torch.empty(0)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        self.logits = scores
        if not any(self._generators) and not any(job.steering for job in self._jobs):
            return scores
        chosen = scores.float().clone()  # (rows, vocabulary)
        for row, (job, generator) in enumerate(zip(self._jobs, self._generators, strict=True)):
            if job.finish_reason:
                continue
            if job.steering is not None:
                chosen[row] = job.steering.moved(chosen[row])
            if generator is not None:
                chosen[row] = _perturbed(chosen[row], job.sampling, generator)
        return chosen


def _generator(sampling: Sampling, device: torch.device) -> torch.Generator | None:
    if (sampling.temperature or 0.0) < COLDEST:
        return None
    generator = torch.Generator(device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed % 2**63)
    return generator


def _perturbed(
    logits: torch.Tensor, sampling: Sampling, generator: torch.Generator
) -> torch.Tensor:
    logits = logits / (sampling.temperature or 1.0)
    if sampling.top_p is not None and sampling.top_p < 1:
        ranked, order = logits.softmax(-1).sort(descending=True)
        # Kept: the fewest tokens whose mass reaches top_p, at least one.
        outside = ranked.cumsum(-1) - ranked >= sampling.top_p
        logits = logits.index_fill(0, order[outside], -torch.inf)
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return logits - noise.clamp_min(torch.finfo(noise.dtype).tiny).log()


class _Progress(StoppingCriteria):
    """Sees every token as it is chosen: collects it, streams it, and ends its row."""

    def __init__(
        self,
        jobs: Sequence[Job],
        loaded: LoadedModel,
        sampler: _Sampler,
        is_closing: Callable[[], bool],
    ) -> None:
        self._jobs = jobs
        self._loaded = loaded
        self._sampler = sampler
        self._is_closing = is_closing

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> Any:
        now, closing = time.monotonic(), self._is_closing()
        numbers = self._sampler.logits.isfinite().any(-1) & ~self._sampler.logits.isnan().any(-1)
        for row, (token, is_sound) in enumerate(
            zip(input_ids[:, -1].tolist(), numbers.tolist(), strict=True)
        ):
            job = self._jobs[row]
            if not job.finish_reason:
                job.is_broken = not is_sound
                self._step(job, row, token)
                if closing or job.is_cancelled or job.is_broken:
                    job.finish_reason = "cancelled"
                _emit(job, now)
        done = [bool(job.finish_reason) for job in self._jobs]
        return torch.tensor(done, device=input_ids.device)

    def _step(self, job: Job, row: int, token: int) -> None:
        if token in self._loaded.end_ids:
            job.finish_reason = "stop"
        else:
            self._add(job, row, token)
            is_complete = job.steering is not None and job.steering.is_complete
            if job.text.is_stopped or is_complete:
                job.finish_reason = "stop"
            elif job.tokens >= (job.sampling.max_tokens or 1):
                job.finish_reason = "length"
        if job.finish_reason:
            job.text.finish()

    def _add(self, job: Job, row: int, token: int) -> None:
        job.tokens += 1
        job.text.add(token)
        if job.sampling.logprobs:
            logits, top = self._sampler.logits[row : row + 1], job.sampling.top_logprobs
            job.logprobs += token_logprobs(self._loaded.tokenizer, logits, [token], top)
            job.ends.append(len(job.text.text))
        if job.steering is not None:
            job.steering.take(token)
            job.is_broken = job.is_broken or job.steering.is_broken


def _emit(job: Job, now: float) -> None:
    is_final = bool(job.finish_reason)
    if job.emit is None or not (is_final or now - job.emitted >= EMIT_EVERY):
        return
    new = job.text.take(is_final=is_final)
    ended = len(job.ends) if is_final else bisect_right(job.ends, job.text.sent)
    if new or ended > job.told:
        job.emitted = now
        job.emit(new, tuple(job.logprobs[job.told : ended]))
        job.told = max(job.told, ended)


def token_logprobs(
    tokenizer: Any, logits: torch.Tensor, ids: list[int], top: int = 0
) -> list[TokenLogprob]:
    """Return the log-probability of each token under its row of logits (tokens, vocabulary).

    Args:
        tokenizer: names the tokens.
        logits: one row a token.
        ids: the tokens.
        top: how many of the likeliest ones to tell beside each.
    """
    table = logits.float().log_softmax(-1)
    index = torch.tensor(ids, device=logits.device)[:, None]
    chosen = table.gather(-1, index)[:, 0].tolist()
    values, likeliest = table.topk(top, dim=-1)  # (tokens, top)

    def named(token: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(tokenizer.decode([token]), logprob)

    tops = [
        tuple(map(named, *row)) for row in zip(likeliest.tolist(), values.tolist(), strict=True)
    ]
    return [
        replace(named(i, p), top=others) for i, p, others in zip(ids, chosen, tops, strict=True)
    ]
