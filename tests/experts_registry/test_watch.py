import asyncio
import os
from contextlib import aclosing

import pytest

from experts_registry import Registry, RegistryError
from experts_registry.watch import watch

GOOD = "version: 1\nexperts:\n  - {name: a, kind: llm, backend: echo, model: x}\n"
MORE = GOOD + "  - {name: b, kind: llm, backend: echo, model: x}\n"
BAD = GOOD.replace("kind", "knd")


def replace(path, text):
    """Write as careful editors do."""
    beside = path.with_name(".beside")
    beside.write_text(text)
    beside.replace(path)


def follow(path, *edits, current=None):
    """Apply each edit after the item before it arrived; return all items."""

    async def run():
        items = []
        async with aclosing(watch(path, current=current)) as watching:
            items += [] if current else [await asyncio.wait_for(anext(watching), 20)]
            for edit in edits:
                edit()
                items.append(await asyncio.wait_for(anext(watching), 20))
        return items

    return asyncio.run(run())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(GOOD)
    return path


def test_each_valid_edit_is_a_new_generation(file):
    first, second, third = follow(
        file, lambda: replace(file, MORE), lambda: file.write_text(GOOD + "# in place\n")
    )
    assert [r.generation for r in (first, second, third)] == [1, 2, 3]
    assert [list(r.experts) for r in (first, second, third)] == [["a"], ["a", "b"], ["a"]]


def test_a_bad_edit_is_an_error_and_the_generations_go_on(file):
    error, good = follow(
        file,
        lambda: replace(file, BAD),
        lambda: replace(file, GOOD),
        current=Registry.load(file),
    )
    assert isinstance(error, RegistryError)
    assert "experts.yaml:3: experts.0.knd" in str(error)
    assert good.generation == 2
    assert list(good.experts) == ["a"]


def test_a_touch_is_no_edit(file):
    def touch_then_edit():
        os.utime(file, (1, 1))
        (file.parent / "unrelated.txt").write_text("x")
        replace(file, MORE)

    (item,) = follow(file, touch_then_edit, current=Registry.load(file))
    assert list(item.experts) == ["a", "b"]
    assert item.generation == 2


def test_an_edit_before_the_watch_began_is_not_missed(file):
    current = Registry.load(file)
    replace(file, MORE)
    (item,) = follow(file, lambda: None, current=current)
    assert item.generation == 2


def test_a_missing_file_is_an_error_until_it_is_back(file):
    error, back = follow(
        file, file.unlink, lambda: file.write_text(MORE), current=Registry.load(file)
    )
    assert isinstance(error, RegistryError)
    assert "does not exist" in str(error)
    assert back.generation == 2


def test_half_a_file_is_an_error_and_the_whole_one_the_next_generation(file):
    half, whole = follow(
        file,
        lambda: file.write_text(MORE[:-20]),
        lambda: file.write_text(MORE),
        current=Registry.load(file),
    )
    assert isinstance(half, RegistryError)
    assert list(whole.experts) == ["a", "b"]


def test_swapped_links_are_followed(tmp_path):
    """As a Kubernetes ConfigMap: experts.yaml -> ..data/experts.yaml, ..data -> ..1."""
    for version, text in (("..1", GOOD), ("..2", MORE)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "experts.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    path = tmp_path / "experts.yaml"
    path.symlink_to("..data/experts.yaml")

    def swap():
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").replace(tmp_path / "..data")

    first, second = follow(path, swap)
    assert [list(first.experts), list(second.experts)] == [["a"], ["a", "b"]]


def test_stop_ends_the_watch(file):
    async def run():
        stop = asyncio.Event()
        items = []
        async for item in watch(file, stop=stop):
            items.append(item)
            stop.set()
        return items

    assert len(asyncio.run(run())) == 1


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(RegistryError, match="nothing to watch"):
        follow(tmp_path / "nowhere" / "experts.yaml")
