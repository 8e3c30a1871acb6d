"""Conformance checks for the authors of backends: what every caller relies on."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from experts_registry.errors import ComposerError, ExpertUnavailableError
from experts_registry.types import LLM, Chunk, Generation, Prompt

__all__ = ["check_llm"]

T = TypeVar("T")
SECONDS = 60.0
"""Longest that one check may take."""


def check_llm(llm: LLM, *, question: str = "Name the capital of France, please.") -> None:
    """Check that an expert keeps the contract of `LLM`; it is closed afterwards.

    The expert should answer ``question`` with several words, and always with the same ones.

    Raises:
        AssertionError: it does not; the message says which promise is broken.
    """
    prompt = Prompt.of(question, temperature=0.0)
    _run(_check_answers(llm, prompt))
    _run(_check_sampling(llm, question))
    _run(_check_several(llm, question))
    _run(_check_cancelling(llm, prompt))
    _check_loops(llm, prompt)
    _run(_check_closing(llm, prompt))


def _run(check: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(check, SECONDS))


def _claim(holds: bool, promise: str) -> None:
    if not holds:
        raise AssertionError(promise)


async def _check_answers(llm: LLM, prompt: Prompt) -> None:
    answer = await llm.generate(prompt)
    _claim(isinstance(answer, Generation), "generate returns a Generation")
    _claim(bool(answer.text), "the question is answered with some text")
    _claim(answer.finish_reason in ("stop", "length"), "finish_reason is 'stop' or 'length'")
    _claim(answer.usage.prompt_tokens > 0, "usage counts the tokens of the prompt")
    _claim(answer.usage.completion_tokens > 0, "usage counts the tokens of the answer")
    chunks = [chunk async for chunk in llm.stream(prompt)]
    _check_chunks(chunks, answer)
    together = await asyncio.gather(*(llm.generate(prompt) for _ in range(4)))
    _claim(all(a.text == answer.text for a in together), "calls at once answer as one alone does")


def _check_chunks(chunks: list[Chunk], answer: Generation) -> None:
    *pieces, last = chunks
    _claim(last.generation is not None and not last.text, "the last chunk is the generation alone")
    _claim(all(p.generation is None for p in pieces), "only the last chunk has the generation")
    if last.generation is None:
        return
    joined = "".join(piece.text for piece in pieces)
    _claim(joined == last.generation.text, "the pieces of a stream join to its text")
    _claim(last.generation.text == answer.text, "a stream and generate give the same answer")
    _claim(last.generation.usage == answer.usage, "a stream and generate count the same tokens")


async def _check_sampling(llm: LLM, question: str) -> None:
    whole = await llm.generate(Prompt.of(question, temperature=0.0))
    short = await llm.generate(Prompt.of(question, temperature=0.0, max_tokens=1))
    _claim(short.usage.completion_tokens <= 1, "max_tokens limits the answer")
    _claim(whole.text.startswith(short.text), "a limited answer is the beginning of the whole one")
    same = await llm.generate(Prompt.of(question, temperature=0.0, stop=("", "\0never said")))
    _claim(same.text == whole.text, "a stop string that is empty or never said changes nothing")
    stop = whole.text.strip()[-1]
    cut = await llm.generate(Prompt.of(question, temperature=0.0, stop=(stop,)))
    _claim(cut.text == whole.text[: whole.text.index(stop)], "a stop string ends the answer")
    chunks = [c.text async for c in llm.stream(Prompt.of(question, temperature=0.0, stop=(stop,)))]
    _claim("".join(chunks) == cut.text, "a stream stops where generate stops")


async def _check_several(llm: LLM, question: str) -> None:
    prompt = Prompt.of(question, temperature=0.0, n=2)
    answer = await llm.generate(prompt)
    _claim(len(answer.choices) == 2, "n answers are given where n are asked for")
    *pieces, last = [chunk async for chunk in llm.stream(prompt)]
    _claim(last.generation is not None, "the last chunk is the generation alone")
    whole = last.generation or answer
    texts = ["".join(p.text for p in pieces if p.index == index) for index in range(2)]
    _claim(texts == [c.text for c in whole.choices], "each piece says to which answer it belongs")


async def _check_cancelling(llm: LLM, prompt: Prompt) -> None:
    call = asyncio.ensure_future(llm.generate(prompt))
    await asyncio.sleep(0)
    call.cancel()
    _claim(await _outcome(call) is asyncio.CancelledError, "a cancelled call raises CancelledError")
    stream = llm.stream(prompt)
    async for _ in stream:
        break
    close: Callable[[], Awaitable[None]] | None = getattr(stream, "aclose", None)
    _claim(close is not None, "a stream can be closed with aclose()")
    if close is not None:
        await close()
    _claim(bool((await llm.generate(prompt)).text), "after a cancelled call the next is answered")


def _check_loops(llm: LLM, prompt: Prompt) -> None:
    def ask(_: int) -> str:
        return _run(_generate(llm, prompt)).text

    with ThreadPoolExecutor(2) as threads:
        texts = set(threads.map(ask, range(4)))
    _claim(len(texts) == 1, "event loops in several threads can ask at once")


async def _generate(llm: LLM, prompt: Prompt) -> Generation:
    return await llm.generate(prompt)


async def _check_closing(llm: LLM, prompt: Prompt) -> None:
    await llm.generate(prompt)
    await llm.aclose()
    await llm.aclose()
    for call in (_generate, _last):
        outcome = await _outcome(asyncio.ensure_future(call(llm, prompt)))
        _claim(outcome is ExpertUnavailableError, "a closed expert raises ExpertUnavailableError")


async def _last(llm: LLM, prompt: Prompt) -> Generation | None:
    return [chunk async for chunk in llm.stream(prompt)][-1].generation


async def _outcome(call: "asyncio.Future[Any]") -> type[BaseException] | None:
    try:
        await call
    except (ComposerError, asyncio.CancelledError) as error:
        return type(error)
    return None
