import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from composer.retriever_training.lora import Adapted, Lora
from composer.retriever_training.material import of_pairs
from composer.retriever_training.training import Course
from composer.retriever_training.workshop import Workshop
from experts_registry.backends.sentence_transformers import SentenceTransformersEmbedder
from experts_registry.errors import DataError, ModelSourceError
from experts_registry.schema import ExpertSpec
from tests.composer.retriever_training.conftest import QUICK, SUBJECTS, subject_pairs

peft = pytest.importorskip("peft", reason="needs expert-composer[lora]")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="session")
def spec(encoder_folder):
    return ExpertSpec(
        name="general",
        kind="retriever",
        backend="sentence_transformers",
        model=f"path:{encoder_folder}",
    )


@pytest.fixture(scope="session")
def course(spec):
    def build(pairs, settings=QUICK):
        return Course(spec, SentenceTransformersEmbedder(spec), of_pairs(pairs), settings)

    return build


@pytest.fixture(scope="session")
def learned(course, tmp_path_factory):
    """A training that nobody interrupts, and its workshop."""
    workshop = Workshop(tmp_path_factory.mktemp("learned") / "subjects")
    return course(subject_pairs()).fit(workshop, quiet=True), workshop


def test_a_planted_signal_is_learned(learned):
    trained, _ = learned
    assert trained.judgment.is_better
    assert trained.judgment.gain.interval.low > 0.05


def test_shuffled_pairs_are_not(course, tmp_path):
    trained = course(subject_pairs(shuffled=True)).fit(Workshop(tmp_path / "x"), quiet=True)
    assert not trained.judgment.is_better


def test_both_sides_can_learn(course, tmp_path):
    settings = QUICK.model_copy(update={"side": "both", "learning_rate": 3e-3, "negatives": 1})
    trained = course(subject_pairs(), settings).fit(Workshop(tmp_path / "x"), quiet=True)
    assert trained.report["losses"][-1] < trained.report["losses"][0]
    assert trained.judgment.after > trained.judgment.before


class Killed(BaseException):
    pass


class Fragile(Workshop):
    """Dies at some write, as a kill or a full disk would have it."""

    left = 5

    def write(self, name, content):
        self.left -= 1
        if not self.left:
            raise Killed
        super().write(name, content)


def test_a_stopped_training_goes_on_and_ends_alike(course, learned, tmp_path):
    whole, workshop = learned
    with pytest.raises(Killed):
        course(subject_pairs()).fit(Fragile(tmp_path / "subjects"), quiet=True)
    again = Workshop(tmp_path / "subjects")
    assert again.read("checkpoint.safetensors") is not None
    rest = course(subject_pairs()).fit(again, quiet=True)
    assert again.read(WEIGHTS) == workshop.read(WEIGHTS)
    assert rest.report["evaluations"] == whole.report["evaluations"]
    assert rest.judgment == whole.judgment


def test_other_settings_do_not_go_on_from_what_was_kept(course, learned, tmp_path):
    workshop = Workshop(tmp_path / "x")
    course(subject_pairs(), QUICK.model_copy(update={"steps": 1})).fit(workshop, quiet=True)
    trained = course(subject_pairs(), QUICK.model_copy(update={"steps": 2})).fit(
        workshop, quiet=True
    )
    assert trained.report["steps"] == 2
    assert len(trained.report["evaluations"]) == 2


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_peft_reads_what_was_saved(learned, spec, tmp_path, encoder_folder):
    _, workshop = learned
    base = AutoModel.from_pretrained(encoder_folder)
    model = peft.PeftModel.from_pretrained(base, str(workshop.folder)).eval()
    ours = Adapted(spec, Lora(), seed=0)
    ours.restore(load_file(workshop.folder / WEIGHTS))
    tokens = torch.tensor([[2, 4, 20, 3]])
    with torch.inference_mode():
        mean = model(tokens).last_hidden_state.mean(dim=1)[0].numpy()
    x = ours.embed([f"{SUBJECTS[0]} filler4"], role="query")[0]
    np.testing.assert_allclose(x, mean / np.linalg.norm(mean), atol=1e-5)


def test_an_untrained_adapter_is_the_base(spec):
    adapted, base = Adapted(spec, Lora(), seed=0), SentenceTransformersEmbedder(spec)
    texts = [query for query, _ in subject_pairs(5)]
    adapted.check(base)
    np.testing.assert_allclose(
        adapted.embed(texts, role="query"), base.embed(texts, role="query"), atol=1e-5
    )


def test_a_base_that_embeds_otherwise_is_refused(spec):
    other = SentenceTransformersEmbedder(
        spec.model_copy(update={"options": {"query_prompt": "subject1 subject2 "}})
    )
    with pytest.raises(ModelSourceError, match="computes other vectors for a query"):
        Adapted(spec, Lora(), seed=0).check(other)


def test_a_disk_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        Workshop(tmp_path / "file" / "x").write("a", b"")
