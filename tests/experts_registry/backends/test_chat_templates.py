import copy

import pytest

from experts_registry.backends.chat_templates import ChatFormat
from experts_registry.errors import ContextLengthError, OffersError, PromptError, RegistryError
from experts_registry.types import Message, Prompt

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)


@pytest.fixture
def chat(spec, tokenizer):
    def build(chat_template=None, *, window=None, template=None, system=None):
        own = copy.deepcopy(tokenizer)
        if chat_template is not None:
            own.chat_template = chat_template
        return ChatFormat(
            spec("transformers"), own, window=window, template=template, system=system
        )

    return build


def turns(*pairs):
    return Prompt(tuple(Message(role, content) for role, content in pairs))


def test_a_conversation_becomes_what_the_template_says(chat):
    prompt = turns(("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"))
    assert chat().render(prompt.messages) == (
        "<|system|>Be brief.<|end|><|user|>a<|end|><|assistant|>b<|end|>"
        "<|user|>c<|end|><|assistant|>"
    )


def test_the_files_system_message_stands_in_for_a_missing_one(chat):
    asked = turns(("user", "a")).messages
    assert chat(system="Be kind.").render(asked).startswith("<|system|>Be kind.<|end|><|user|>a")
    own = turns(("system", "Be brief."), ("user", "a")).messages
    assert "kind" not in chat(system="Be kind.").render(own)


def test_a_template_without_system_role_gets_it_in_the_first_user_turn(chat):
    prompt = turns(("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"))
    rendered = chat(NO_SYSTEM).render(prompt.messages)
    assert rendered == "[user]Be brief.\n\na[assistant]b[user]c"


def test_a_conversation_that_the_template_refuses_is_a_prompt_error(chat):
    refuse = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(PromptError, match=r"expert 'x'.*refuses.*roles must alternate"):
        chat(refuse).render(turns(("user", "a")).messages)


def test_a_model_without_chat_template_needs_a_prompt_template(chat):
    with pytest.raises(RegistryError, match=r"expert 'x': options\.prompt_template: is missing"):
        chat("")


def test_a_prompt_template_takes_any_text_and_all_turns(chat):
    base = chat("", template="Q: {prompt}\nA:", system="S")
    assert base.render(turns(("user", "{a} {prompt}")).messages) == "Q: S\n\n{a} {prompt}\nA:"


def test_the_window_has_room_for_one_more_token(chat):
    needed = len(chat().encode(turns(("user", "abc"))))
    assert len(chat(window=needed + 1).encode(turns(("user", "abc")))) == needed
    with pytest.raises(ContextLengthError, match=f"at least {needed} tokens .* window {needed}"):
        chat(window=needed).encode(turns(("user", "abc")))


def test_a_text_far_too_long_is_never_tokenised(chat):
    form = chat(window=100)
    form.tokenizer = None
    with pytest.raises(
        ContextLengthError, match="at least 83333 tokens and the context window 100"
    ):
        form.encode(turns(("user", "x" * 1_000_000)))


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"a_key_of_tomorrow": 1}, "a_key_of_tomorrow"),
    ],
)
def test_what_a_local_model_cannot_do_is_refused(chat, extra, what):
    with pytest.raises(OffersError, match=f"does not offer {what}"):
        chat().encode(Prompt((Message("user", "a"),), extra=extra))


def test_harmless_keys_are_not_refused(chat):
    extra = {"tools": [], "response_format": {"type": "text"}, "user": "me"}
    assert chat().encode(Prompt((Message("user", "a"),), extra=extra))


def test_images_are_refused_and_parts_of_text_are_not(chat):
    text = {"type": "text", "text": "a"}
    image = {"type": "image_url", "image_url": {"url": "u"}}
    assert chat().encode(Prompt.of([{"role": "user", "content": [text]}]))
    with pytest.raises(OffersError, match="does not offer image_url"):
        chat().encode(Prompt.of([{"role": "user", "content": [text, image]}]))


def test_any_script_can_be_asked(chat):
    for text in ("東京はどこ?", "Где Москва?", "🙂" * 5, "\ud800", "\0"):
        assert chat().encode(turns(("user", text)))
