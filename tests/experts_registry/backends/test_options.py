import pytest
from pydantic import BaseModel

from experts_registry.backends.options import check_offers, parse_options
from experts_registry.errors import RegistryError


class Options(BaseModel, extra="forbid", frozen=True):
    timeout: float = 1.0
    retries: int = 2


def test_the_nearest_option_is_offered(spec):
    with pytest.raises(RegistryError) as error:
        parse_options(Options, spec("echo", options={"timeoutt": 3}))
    assert str(error.value) == (
        "expert 'x': options.timeoutt: Extra inputs are not permitted; did you mean 'timeout'?"
    )


def test_an_unknown_option_like_no_other_lists_them(spec):
    with pytest.raises(RegistryError, match="use one of timeout, retries"):
        parse_options(Options, spec("echo", options={"zzz": 3}))


def test_every_mistake_has_its_line(spec):
    with pytest.raises(RegistryError) as error:
        parse_options(Options, spec("echo", options={"timeout": "soon", "retries": None}))
    first, second = str(error.value).splitlines()
    assert first.startswith("expert 'x': options.timeout: Input should be a valid number")
    assert second.startswith("expert 'x': options.retries: Input should be a valid integer")


def test_a_file_cannot_promise_more_than_the_backend_offers(spec):
    with pytest.raises(RegistryError, match="offers: backend 'echo' has no hidden; use text"):
        check_offers(spec("echo", offers=("text", "hidden")), ("text",))


def test_a_file_may_offer_less(spec):
    assert check_offers(spec("echo", offers=("text",)), ("text", "logprobs")) == {"text"}
    assert check_offers(spec("echo"), ("text", "logprobs")) == {"text", "logprobs"}
