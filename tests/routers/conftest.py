import pytest

from routers.testing import HashingEncoder, synthetic_outcomes


@pytest.fixture(scope="session")
def encoder():
    return HashingEncoder()


@pytest.fixture(scope="session")
def outcomes():
    return synthetic_outcomes(n=240)
