import logging

import pytest

from composer.opened import Opened
from composer.stores.choosing import Choosing
from experts_registry.errors import ArtefactError, RegistryError, UnknownNameError
from tests.composer.stores.conftest import FOOD, LAW, YAML


@pytest.fixture
def choosing(registry):
    """Return what chooses by a registry of these lines."""

    def of(text=YAML):
        loaded = registry(text)
        return Choosing(loaded, Opened(loaded).embedder)

    return of


@pytest.mark.parametrize("encoder", ["words", "other"])
def test_the_pilot_router_chooses_by_the_encoder_that_it_was_trained_with(choosing, train, encoder):
    train(encoder)
    choose = choosing()
    assert choose.decide("texts", LAW[0]).experts == ("law",)
    decision = choose.decide("texts", FOOD[0])
    assert decision.experts == ("food",)
    assert {c.expert for c in decision.candidates} == {"law", "food"}


def test_several_are_asked_where_lists_are_fused(choosing, train):
    train()
    choose = choosing(YAML.replace("router: pilots", "router: pilots, fuse: 5"))
    assert choose.decide("texts", FOOD[0]).experts == ("food", "law")


def test_pilots_of_an_encoder_that_is_not_registered_are_an_error(choosing, train):
    train("other")
    gone = YAML.replace("{dimensions: 128}", "{dimensions: 64}")
    with pytest.raises(ArtefactError, match=r"pilots: .*none of words, law, food, other"):
        choosing(gone).decide("texts", LAW[0])


def test_without_trained_pilots_the_first_is_asked_and_said_once(choosing, caplog):
    choose = choosing()
    with caplog.at_level(logging.WARNING):
        assert [choose.decide("texts", text).experts for text in FOOD] == [("law",)] * 3
    assert len([r for r in caplog.records if "pilot" in r.message]) == 1


def test_pilots_are_seen_once_they_are_trained(choosing, train):
    choose = choosing()
    assert choose.decide("texts", FOOD[0]).experts == ("law",)
    train()
    assert choose.decide("texts", FOOD[0]).experts == ("food",)


def test_disabled_retrievers_are_never_chosen(choosing, train):
    train()
    choose = choosing(YAML.replace("{dimensions: 256}", "{dimensions: 256}, enabled: false"))
    assert choose.decide("texts", FOOD[0]).experts == ("law",)


def test_a_store_whose_retrievers_are_all_disabled_is_an_error(choosing):
    text = YAML.replace("retrievers: [off, law, food]", "retrievers: [off]")
    with pytest.raises(RegistryError, match="none of its retrievers is enabled"):
        choosing(text).decide("texts", LAW[0])


def test_who_is_named_is_asked(choosing, train):
    train()
    assert choosing().decide("texts", FOOD[0], retriever="law").experts == ("law",)


@pytest.mark.parametrize("name", ["off", "other", "lawyer"])
def test_a_name_that_the_store_has_not_is_an_error(choosing, name):
    with pytest.raises(UnknownNameError, match="law"):
        choosing().decide("texts", LAW[0], retriever=name)


def test_an_unknown_store_is_an_error(choosing):
    with pytest.raises(UnknownNameError, match="texts"):
        choosing().decide("text", LAW[0])
