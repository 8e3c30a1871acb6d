"""Turn a conversation into the tokens that one local model wants to see."""

from typing import Any

from jinja2 import TemplateError

from experts_registry.backends.requested import require_answerable
from experts_registry.errors import ContextLengthError, PromptError, RegistryError
from experts_registry.schema import ExpertSpec
from experts_registry.types import Message, Prompt

__all__ = ["ChatFormat"]

# No tokenizer packs ordinary text this densely, so a longer text need not be tokenised at all.
CHARACTERS_PER_TOKEN = 12

_HONOURED = ("frequency_penalty", "logit_bias", "presence_penalty", "response_format")


class ChatFormat:
    """How one model reads a conversation.

    Args:
        spec: whose conversations these are.
        tokenizer: of the model, with its chat template, if it has one.
        window: most tokens of prompt and answer together.
        template: a text with ``{prompt}``, for models without a chat template; wins over one.
        system: put first where the conversation has no system message.

    Raises:
        RegistryError: the model has no chat template and none is given.
    """

    def __init__(
        self,
        spec: ExpertSpec,
        tokenizer: Any,
        *,
        window: int | None,
        template: str | None,
        system: str | None,
    ) -> None:
        if template is None and not tokenizer.chat_template:
            raise RegistryError(
                f"expert {spec.name!r}: options.prompt_template: is missing, and {spec.model!r} "
                'has no chat template; write for example "Question: {prompt}\\nAnswer:"'
            )
        self.spec = spec
        self.tokenizer = tokenizer
        self.window = window
        self.template = template
        self.system = system

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the tokens of a prompt; there is room for at least one more in the window.

        Raises:
            ContextLengthError: it is too long.
            OffersError: it holds images, tools or other things that are not text.
            PromptError: the chat template refuses the conversation.
        """
        require_answerable(self.spec, prompt, honoured=_HONOURED)
        self._require_room(sum(len(m.content) for m in prompt.messages) // CHARACTERS_PER_TOKEN)
        # No tokenizer takes a lone surrogate.
        text = self.render(prompt.messages).encode(errors="replace").decode()
        # A chat template writes the special tokens itself; a plain text needs them added.
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=self.template is not None)
        self._require_room(len(ids))
        if not ids:
            raise PromptError(f"expert {self.spec.name!r}: the prompt has no tokens; write a text")
        return ids

    def render(self, messages: tuple[Message, ...]) -> str:
        """Write a conversation as the text that the model continues."""
        if self.system is not None and all(m.role not in ("system", "developer") for m in messages):
            messages = (Message("system", self.system), *messages)
        if self.template is not None:
            return self.template.replace("{prompt}", "\n\n".join(m.content for m in messages))
        try:
            return self._apply(messages)
        except TemplateError:
            # Some templates know no system role: the first user turn then begins with it.
            merged = _without_system(messages)
        try:
            return self._apply(merged)
        except TemplateError as error:
            raise PromptError(
                f"expert {self.spec.name!r}: its chat template refuses the conversation: {error}; "
                "let user and assistant alternate, or set options.prompt_template"
            ) from error

    def _apply(self, messages: tuple[Message, ...]) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        text: str = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        return text

    def _require_room(self, tokens: int) -> None:
        if self.window is not None and tokens + 1 > self.window:
            raise ContextLengthError(
                f"expert {self.spec.name!r}: the prompt has at least {tokens} tokens and the "
                f"context window {self.window}, answer included; shorten it or ask an expert with "
                "a longer one"
            )


def _without_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    system = [m.content for m in messages if m.role in ("system", "developer")]
    turns = [m for m in messages if m.role not in ("system", "developer")]
    first = next((i for i, m in enumerate(turns) if m.role == "user"), None)
    if not system or first is None:
        return messages
    turns[first] = Message("user", "\n\n".join([*system, turns[first].content]))
    return tuple(turns)
