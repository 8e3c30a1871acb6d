import pytest

from experts_registry.backends.endpoint import Endpoint
from experts_registry.errors import RegistryError


def endpoint(spec, url, key_env=None):
    return Endpoint.of(spec("openai"), url, key_env)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/v1",
        "http://0xA9FEA9FE/v1",
        "http://2852039166/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://[fe80::1]/v1",
        "http://[fe80::1%25eth0]/v1",
        "http://[fd00:ec2::254]/v1",
        "http://[fd20:ce::254]/v1",
        "http://169.254.169.254./v1",
        "http://0251.0376.0251.0376/v1",
        "http://169.16689662/v1",
        "http://[::169.254.169.254]/v1",
        "http://[64:ff9b::169.254.169.254]/v1",
        "http://[2002:a9fe:a9fe::1]/v1",
        "http://100.100.100.200/v1",
        "http://168.63.129.16/v1",
        "http://METADATA.google.internal/v1",
        "http://metadata.google.internal./v1",
        "file:///etc/passwd",
        "ftp://example.com/v1",
        "example.com/v1",
        "http:///v1",
        "http://[::1/v1",
        "http://host:port/v1",
        "https://me:secret@example.com/v1",
    ],
)
def test_addresses_where_no_expert_lives_are_refused(spec, url):
    with pytest.raises(RegistryError, match=r"expert 'x': options\.base_url: ") as error:
        endpoint(spec, url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://[::1]:8000/v1/", "http://[::1]:8000/v1/chat/completions"),
        ("https://a.example/x?api-version=1", "https://a.example/x/chat/completions?api-version=1"),
    ],
)
def test_the_path_of_the_api_is_added(spec, url, expected):
    assert endpoint(spec, url).url == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "http://[::1]/v1",
        "http://0.0.0.0:8000/v1",
        "http://10.0.0.1/v1",
        "http://192.168.1.5/v1",
        "http://172.17.0.1/v1",
        "http://100.64.0.1/v1",
        "http://[fd12:3456::1]/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "http://vllm:8000/v1",
        "https://api.openai.com/v1",
    ],
)
def test_this_machine_private_networks_and_the_internet_are_allowed(spec, url, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-public")
    assert endpoint(spec, url).url.startswith(url)


def test_a_link_local_server_is_asked_where_the_file_says_so(spec):
    url = "http://169.254.7.7/v1"
    assert Endpoint.of(spec("openai"), url, None, allow_link_local=True).url.startswith(url)


@pytest.mark.parametrize(
    ("url", "is_loopback"),
    [("http://localhost/v1", True), ("http://127.9.9.9/v1", True), ("http://10.0.0.1/v1", False)],
)
def test_loopback_is_recognised(spec, url, is_loopback):
    assert endpoint(spec, url).is_loopback is is_loopback


def test_a_missing_key_names_its_variable(spec, monkeypatch):
    monkeypatch.delenv("BIG_KEY", raising=False)
    with pytest.raises(RegistryError, match="environment variable 'BIG_KEY' is not set"):
        endpoint(spec, "https://a.example/v1", "BIG_KEY")


def test_a_key_that_no_header_may_hold_is_refused_unseen(spec, monkeypatch):
    monkeypatch.setenv("BIG_KEY", "se\ncret")
    with pytest.raises(RegistryError, match="BIG_KEY") as error:
        endpoint(spec, "https://a.example/v1", "BIG_KEY")
    assert "cret" not in str(error.value)


def test_the_public_key_goes_to_the_public_server_only(spec, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-public")
    assert endpoint(spec, "https://api.openai.com/v1").key == "sk-public"
    assert endpoint(spec, "https://a.example/v1").key == ""


def test_the_key_is_hidden_in_quotes_and_representations(spec, monkeypatch):
    monkeypatch.setenv("BIG_KEY", "sk-secret")
    place = endpoint(spec, "https://a.example/v1", "BIG_KEY")
    assert place.quote("bad key sk-secret\n given") == "bad key *** given"
    assert place.quote("x" * 78 + "sk-secret") == "x" * 77 + "..."
    assert "sk-secret" not in repr(place)
