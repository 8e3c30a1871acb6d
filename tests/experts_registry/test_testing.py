"""The conformance check must fail on experts that break each promise."""

import asyncio
from dataclasses import replace

import pytest

from experts_registry.backends.echo import EchoLLM
from experts_registry.schema import ExpertSpec
from experts_registry.testing import check_llm
from experts_registry.types import Chunk, Usage


@pytest.fixture
def spec():
    return ExpertSpec(name="x", kind="llm", backend="echo", model="none")


class ForgetsUsage(EchoLLM):
    async def generate(self, prompt):
        return replace(await super().generate(prompt), usage=Usage())


class LosesPieces(EchoLLM):
    async def stream(self, prompt):
        async for chunk in super().stream(prompt):
            if chunk.generation or not chunk.text.startswith(" "):
                yield chunk


class NeverEndsStreams(EchoLLM):
    async def stream(self, prompt):
        async for chunk in super().stream(prompt):
            yield Chunk(chunk.text)


class IgnoresLimits(EchoLLM):
    async def generate(self, prompt):
        return await super().generate(
            replace(prompt, sampling=replace(prompt.sampling, max_tokens=None))
        )


class IgnoresStops(EchoLLM):
    async def generate(self, prompt):
        return await super().generate(replace(prompt, sampling=replace(prompt.sampling, stop=())))


class SwallowsCancellation(EchoLLM):
    async def generate(self, prompt):
        try:
            return await super().generate(prompt)
        except asyncio.CancelledError:
            return await super().generate(prompt)


class NeverCloses(EchoLLM):
    async def aclose(self):
        pass


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (ForgetsUsage, "usage counts the tokens of the prompt"),
        (LosesPieces, "the pieces of a stream join"),
        (NeverEndsStreams, "the last chunk is the generation alone"),
        (IgnoresLimits, "max_tokens limits the answer"),
        (IgnoresStops, "a stop string ends the answer"),
        (SwallowsCancellation, "a cancelled call raises CancelledError"),
        (NeverCloses, "a closed expert raises ExpertUnavailableError"),
    ],
)
def test_a_broken_promise_is_named(spec, broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_llm(broken(spec))
