import os
import threading
from concurrent.futures import ThreadPoolExecutor

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


def test_nobody_waits_for_a_newer_one_while_there_is_an_older_one(file):
    begun, may_end = threading.Event(), threading.Event()

    def read():
        text = file.read_text()
        if text == "two":
            begun.set()
            assert may_end.wait(30)
        return text

    current = Current(read, lambda: file_mark(file))
    assert current.get() == "one"
    replace(file, "two")
    with ThreadPoolExecutor() as threads:
        newer = threads.submit(current.get)
        assert begun.wait(30)
        assert threads.submit(current.get).result(30) == "one"
        may_end.set()
        assert newer.result(30) == "two"
    assert current.get() == "two"


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
