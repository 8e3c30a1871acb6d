import pytest

from composer.http.joined import Joined


class Transport:
    def __init__(self):
        self.written, self.is_closed = [], False

    def write(self, data):
        self.written.append(data)

    def is_closing(self):
        return self.is_closed

    def close(self):
        self.is_closed = True


@pytest.fixture
def transport():
    return Transport()


def test_head_and_first_piece_are_one_write(transport):
    joined = Joined(transport)
    for data in (b"HTTP/1.1 200 OK\r\n\r\n", b"first", b"second"):
        joined.write(data)
    assert transport.written == [b"HTTP/1.1 200 OK\r\n\r\nfirst", b"second"]


def test_continue_is_written_at_once(transport):
    joined = Joined(transport)
    joined.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert transport.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    joined.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    joined.write(b"")
    assert transport.written[1:] == [b"HTTP/1.1 204 No Content\r\n\r\n"]


def test_close_loses_no_head(transport):
    joined = Joined(transport)
    joined.write(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
    joined.close()
    assert transport.written == [b"HTTP/1.1 500 Internal Server Error\r\n\r\n"]
    assert joined.is_closing()
