import os

import pytest

from composer.stores.current import Current, file_mark


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_text("one")
    return path


def replace(file, text):
    new = file.with_name("new")
    new.write_text(text)
    os.replace(new, file)  # noqa: PTH105 - as those do that replace a pointer


def test_it_is_read_once_until_it_is_replaced(file):
    read = []
    current = Current(lambda: read.append(file.read_text()) or read[-1], lambda: file_mark(file))
    assert [current.get(), current.get()] == ["one", "one"]
    assert len(read) == 1
    replace(file, "two")
    assert [current.get(), current.get()] == ["two", "two"]
    assert len(read) == 2


def test_what_could_not_be_read_is_tried_again(file):
    text = file.read_text()
    file.unlink()
    current = Current(file.read_text, lambda: file_mark(file))
    with pytest.raises(FileNotFoundError):
        current.get()
    file.write_text(text)
    assert current.get() == "one"


def test_what_vanished_is_not_served(file):
    current = Current(file.read_text, lambda: file_mark(file))
    current.get()
    file.unlink()
    with pytest.raises(FileNotFoundError):
        current.get()


def test_what_is_absent_may_be_a_value(tmp_path):
    current = Current(lambda: None, lambda: file_mark(tmp_path / "none"))
    assert current.get() is None
    assert current.get() is None
