"""The one client that is installed anyway; ``scripts/clients`` tries the others."""

import os
import subprocess
import sys

import pytest

from tests.clients.contract import Result
from tests.clients.door import door
from tests.clients.matrix import DRIVERS, SCENARIOS


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with door(tmp_path_factory.mktemp("door")) as url:
        yield url


def drive(scenario, url):
    env = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none", "NO_PROXY": "*"}
    command = [sys.executable, str(DRIVERS / "openai_python.py"), scenario]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_openai_client_does_it_all(scenario, url):
    done = drive(scenario, url)
    assert done.returncode == 0, done.stderr


def test_a_client_that_gets_no_answer_is_noticed():
    assert drive("chat", "http://127.0.0.1:9/v1").returncode != 0


@pytest.mark.parametrize(
    ("file", "name", "is_known"),
    [
        ("chat.test_completions.TestCompletions", "test_method_delete[loose]", True),
        ("chat.test_completions.TestCompletions", "test_method_list[loose]", False),
        ("test_models.TestModels", "test_method_retrieve[strict]", False),
        ("test_embeddings.TestEmbeddings", "test_method_create[loose]", False),
        ("test_embeddings.TestEmbeddings", "test_method_create_with_all_params[strict]", False),
    ],
)
def test_only_contradictions_may_fail(file, name, is_known):
    assert (Result(file, name, "failed").why is not None) is is_known
