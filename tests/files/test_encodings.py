"""Texts in the encodings that people bring: named, marked, or neither."""

import pytest

from headscope.errors import HeadscopeError
from headscope.files import encodings
from headscope.files.encodings import decode, lines


def fail(text):
    return HeadscopeError(f"words.txt{text}")


@pytest.mark.parametrize(
    ("content", "named", "text"),
    [
        (b"\xef\xbb\xbfcaf\xc3\xa9", None, "café"),
        (b"\xef\xbb\xbfcaf\xc3\xa9", "utf-8", "café"),
        ("café".encode("utf-16"), None, "café"),
        ("café".encode("utf-16-le"), "utf-16-le", "café"),
        (b"caf\xe9", "cp1252", "café"),
        ("café".encode("utf-16-le"), "utf-16", "café"),
        ("café".encode("utf-32-le"), "utf-32", "café"),
        (b"", None, ""),
    ],
)
def test_text_in_its_encoding(tmp_path, content, named, text):
    assert decode(content, named, fail) == text
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    assert list(lines(path, named, fail)) == ([(1, text)] if text else [])


@pytest.mark.parametrize("name", ["latin-17", "", "a\x00b", "base64"])
def test_an_encoding_that_does_not_exist(name):
    with pytest.raises(HeadscopeError, match="there is no such encoding of text; give one such as cp1252"):
        decode(b"abc", name, fail)


def test_bytes_of_another_encoding_name_the_one_that_fits(tmp_path):
    with pytest.raises(HeadscopeError, match=r"words.txt.*--encoding cp1252"):
        decode(b"caf\xe9 au lait", None, fail)
    path = tmp_path / "words.txt"
    path.write_bytes(b"tea\n" + b"caf\xe9\n" * 5)
    with pytest.raises(HeadscopeError, match=r"words.txt, after line \d.*--encoding cp1252"):
        list(lines(path, None, fail))


def test_a_line_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "LONGEST_LINE", 11)
    path = tmp_path / "words.txt"
    path.write_text("short\n" + 13 * "x")
    with pytest.raises(HeadscopeError, match="words.txt, line 2: has more than 11 characters. Break it into several"):
        list(lines(path, None, fail))


def test_half_of_a_surrogate_pair(tmp_path):
    """Encodings that write letters as numbers can say it, and no tokenizer reads it."""
    path = tmp_path / "words.txt"
    path.write_bytes(b"tea\na\\ud800b\n")
    with pytest.raises(HeadscopeError, match=r"words.txt: this holds half of a surrogate pair .* which is no text"):
        decode(path.read_bytes(), "unicode_escape", fail)
    with pytest.raises(HeadscopeError, match=r"words.txt, line 2: this holds half of a surrogate pair .* no text"):
        list(lines(path, "unicode_escape", fail))


def test_what_an_encoding_says_in_an_error_of_its_own(tmp_path):
    """Not every codec names the byte."""
    path = tmp_path / "words.txt"
    path.write_bytes(b"xn--" + 99 * b"a")
    with pytest.raises(HeadscopeError, match=r"words.txt: this is not in the encoding idna .* --encoding cp1252"):
        decode(path.read_bytes(), "idna", fail)
    with pytest.raises(HeadscopeError, match=r"words.txt, after line 0: this is not in the encoding idna"):
        list(lines(path, "idna", fail))
