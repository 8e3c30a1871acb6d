import pytest
import torch

from experts_registry.backends.local_models import (
    _pick_dtype,
    computing,
    hub_arguments,
    loading,
    pick_device,
)
from experts_registry.errors import CapacityError, ExpertUnavailableError, ModelSourceError


def test_a_full_gpu_says_what_to_change(spec):
    with (
        pytest.raises(CapacityError, match=r"expert 'x': the GPU ran out of memory.*max_batch"),
        computing(spec("transformers")),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_model_that_fails_is_unavailable(spec):
    with (
        pytest.raises(ExpertUnavailableError, match="expert 'x': the model failed: device-side"),
        computing(spec("transformers")),
    ):
        raise RuntimeError("device-side assert")


def test_nothing_is_recorded_for_gradients(spec):
    with computing(spec("transformers")):
        assert torch.is_inference_mode_enabled()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("full")])
def test_a_model_that_does_not_fit_is_a_capacity_error(spec, error):
    with pytest.raises(CapacityError, match="not enough memory"), loading(spec("transformers")):
        raise error


def test_a_long_library_message_becomes_one_line(spec):
    with pytest.raises(ModelSourceError) as caught, loading(spec("transformers")):
        raise OSError("first line\n\nsecond " + "x" * 1000)
    assert "OSError: first line second xxx" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_every_cpu_computes_in_float32():
    assert _pick_dtype("auto", torch.device("cpu")) is torch.float32
    assert _pick_dtype("auto", torch.device("cuda")) is torch.bfloat16
    assert _pick_dtype("float16", torch.device("cpu")) is torch.float16


def test_a_device_can_be_named(spec):
    assert pick_device(spec("transformers"), "cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("org/model", {"trust_remote_code": False, "revision": "v1"}),
        ("path:/model", {"trust_remote_code": False}),
    ],
)
def test_a_revision_is_for_the_hub(spec, model, expected):
    found = hub_arguments(spec("transformers", model), revision="v1", trust_remote_code=False)
    assert found == expected
