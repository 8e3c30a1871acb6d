import codecs
import gzip
import io
import json
import os
from collections import Counter

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from composer.stores.documents import documents
from experts_registry.errors import DataError


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pdf(*pages, password=None):
    """Return a PDF that says these texts, one a page."""
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(300, 300)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(content)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


@pytest.mark.parametrize("key", ["id", "_id", "doc_id"])
def test_json_lines_of_every_layout_are_read(tmp_path, key):
    path = write(
        tmp_path / "c.jsonl", {key: "a", "title": "T", "text": "one"}, {key: 7, "text": "2"}
    )
    found = list(documents(path))
    assert [(d.id, d.title, d.text, d.source) for d in found] == [
        ("a", "T", "one", "a"),
        ("7", "", "2", "7"),
    ]


def test_gzip_is_unpacked(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "a", "text": "one"}\n\n'))
    assert [d.text for d in documents(path)] == ["one"]


def test_a_line_without_id_gets_one_by_its_content(tmp_path):
    path = write(tmp_path / "c.jsonl", {"text": "one"}, {"text": "two"}, {"text": "one"})
    first, second, third = (d.id for d in documents(path))
    assert first == third != second


def test_empty_texts_are_counted_not_read(tmp_path):
    path = write(tmp_path / "c.jsonl", {"id": "a", "text": " \n"}, {"id": "b", "text": "x"})
    skipped = Counter()
    assert [d.id for d in documents(path, skipped=skipped)] == ["b"]
    assert sum(skipped.values()) == 1


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"id": "b", "txt": "x"}', "no 'text'"),
        (b'{"id": "b", "text": 3}', "text: is a int"),
        (b'{"id": "b", "text": ["x"]}', "text: is a list"),
        (b'{"id": "", "text": "x"}', "id: is empty"),
        (b'{"id": [1], "text": "x"}', "id: is a list"),
        (b'{"id": true, "text": "x"}', "id: is a bool"),
        (b'{"id": "b", "text": "x"', "is not JSON"),
        (b'["x"]', "is a JSON list"),
        (b'{"id": "b", "text": "a\\u0000b"}', "NUL"),
        (b'{"id": "b", "text": "\\ud800"}', "surrogate"),
        (b'{"id": "b", "text": ' + b"[" * 100_000, "nested"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_line(tmp_path, line, what):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"id": "a", "text": "x"}\n' + line + b"\n")
    with pytest.raises(DataError, match=rf"c\.jsonl:2: .*{what}"):
        list(documents(path))


def test_a_byte_that_is_not_utf8_is_named(tmp_path):
    good = b'{"id": "a", "text": "x"}\n'
    path = tmp_path / "c.jsonl"
    path.write_bytes(good + '{"id": "b", "text": "é"}\n'.encode("latin-1"))
    with pytest.raises(
        DataError, match=rf"c\.jsonl:2: is not UTF-8 at byte {len(good) + 21}; .*iconv"
    ):
        list(documents(path))
    path = tmp_path / "t.txt"
    path.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=r"t\.txt: is not UTF-8 at byte 3; .*iconv"):
        list(documents(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["c.jsonl", "t.txt"])
def test_byte_order_marks_tell_the_encoding(tmp_path, encoding, name):
    path = tmp_path / name
    line = '{"id": "a", "text": "größer 東京"}'
    path.write_bytes("\n".join([line, line.replace('"a"', '"b"')]).encode(encoding))
    found = list(documents(path))
    if name == "c.jsonl":
        assert [(d.id, d.text) for d in found] == [("a", "größer 東京"), ("b", "größer 東京")]
    else:
        assert found[0].text.startswith(line)


def test_half_a_file_in_utf16_is_an_error(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(codecs.BOM_UTF16_LE + '{"id": "a"'.encode("utf-16-le")[:-1])
    with pytest.raises(DataError, match=r"c\.jsonl:1: is not UTF-16"):
        list(documents(path))


def test_a_binary_file_called_text_is_an_error(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"abc\0def")
    with pytest.raises(DataError, match=r"t\.txt: .*NUL character at 3"):
        list(documents(tmp_path))


def test_a_line_of_a_megabyte_is_read(tmp_path):
    path = write(tmp_path / "c.jsonl", {"id": "a", "text": "word " * 200_000})
    assert [len(d.text) for d in documents(path)] == [1_000_000]


def test_a_folder_is_read_in_one_order_and_other_types_are_counted(tmp_path):
    for name in ("b/z.txt", "b/a.MD", "a.txt", ".git/x.txt", "b/.hidden.txt", "b/p.png", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name == "e.txt" else f"text of {name}")
    skipped = Counter()
    found = list(documents(tmp_path, skipped=skipped))
    assert [(d.id, d.source) for d in found] == [(n, n) for n in ("a.txt", "b/a.MD", "b/z.txt")]
    assert sorted(skipped.values()) == [1, 1]


def test_queries_beside_a_corpus_are_not_passages(tmp_path):
    write(tmp_path / "corpus.jsonl", {"_id": "d", "text": "passage"})
    write(tmp_path / "queries.jsonl", {"_id": "q", "text": "query"})
    assert [d.id for d in documents(tmp_path)] == ["d"]


def test_a_markdown_file_is_called_after_its_first_heading(tmp_path):
    (tmp_path / "a.md").write_bytes(b"Before\r\n\r\n## The *real* one ##\r\n\r\n# Later\r\n")
    (tmp_path / "b.md").write_text("#hashtag\n")
    assert [d.title for d in documents(tmp_path)] == ["The *real* one", ""]


def test_all_wrong_lines_of_a_file_are_told(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": 1}\n{"id": 2, "text": "right"}\n{oops\n' + "[]\n" * 50)
    with pytest.raises(DataError) as told:
        list(documents(path))
    lines = [line.split(": ")[0] for line in str(told.value).splitlines()]
    assert lines[:3] == [f"{path}:1", f"{path}:3", f"{path}:4"]
    assert len(lines) < 50


def test_a_file_whose_name_is_not_utf8_is_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("coffee")
    (found,) = documents(tmp_path)
    assert found.id.encode() == found.source.encode() == rb"caf\udce9.txt"


def test_line_ends_stay_as_they_are(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    assert [d.text for d in documents(tmp_path)] == ["one\r\ntwo\r\n"]


def test_pages_of_a_pdf_are_read(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf("First page", "Second page"))
    assert [d.text for d in documents(tmp_path)] == ["First page\n\nSecond page"]


def test_a_pdf_without_text_is_counted(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf())
    skipped = Counter()
    assert list(documents(tmp_path, skipped=skipped)) == []
    assert sum(skipped.values()) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "cannot be read as a PDF"),
        (b"<html>not found</html>", "cannot be read as a PDF"),
        (b"%PDF-1.7\n" + b"\xff\x00garbage" * 100, "cannot be read as a PDF"),
        (pdf("x")[:300], "cannot be read as a PDF"),
        (pdf("x", password="secret"), "encrypted"),
    ],
    ids=["empty", "html", "garbage", "cut", "encrypted"],
)
def test_a_pdf_that_is_not_one_is_named_with_the_reason(tmp_path, content, what):
    (tmp_path / "bad.pdf").write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.pdf: .*{what}"):
        list(documents(tmp_path))


@pytest.mark.parametrize("name", ["missing.jsonl", "data.parquet"])
def test_what_cannot_be_read_is_an_error(tmp_path, name):
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=name):
        list(documents(tmp_path / name))


def test_a_gzip_file_that_was_cut_off_is_an_error(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "a", "text": "one"}\n' * 1000)[:-20])
    with pytest.raises(DataError, match=r"c\.jsonl\.gz: cannot be read"):
        list(documents(path))
