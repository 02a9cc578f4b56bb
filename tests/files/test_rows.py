"""Tables as people bring them."""

import pytest

from headscope.errors import HeadscopeError
from headscope.files.rows import row_of, rows_of_csv, rows_of_parquet


def rows(tmp_path, content, delimiter=","):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    return list(rows_of_csv(path, None, lambda text: HeadscopeError(f"table.csv{text}"), delimiter))


@pytest.mark.parametrize(
    "content",
    [
        b"text,label\nred,1\n\nblue,2\n",
        b"\xef\xbb\xbftext,label\r\nred,1\r\n\r\nblue,2\r\n",
        b"\n\ntext;label\nred;1\nblue;2",
        b"text\tlabel\nred\t1\nblue\t2\n",
        b'"text","label"\n"red","1"\n"blue","2"\n',
    ],
)
def test_the_rows_of_a_table(tmp_path, content):
    assert [row for _, row in rows(tmp_path, content)] == [
        {"text": "red", "label": "1"}, {"text": "blue", "label": "2"},
    ]  # fmt: skip


def test_lines_are_named_as_they_stand_in_the_file(tmp_path):
    assert [number for number, _ in rows(tmp_path, b'text,label\n"two\nlines",1\n\nblue,2\n')] == [3, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,text\nred,1\n", "table.csv, line 1: the column 'text' is there twice. Give each a name of its own"),
        (
            b"text,label\nred, or so,1\n",
            r"line 2: 3 cells, and the header has 2. Put cells with ',' in them in quot",
        ),
        (b'text,label\nred,"1"x\n', "line 2: this cannot be read as comma-separated values"),
    ],
)
def test_odd_tables_are_named_by_line(tmp_path, content, message):
    with pytest.raises(HeadscopeError, match=message):
        rows(tmp_path, content)


def test_half_of_a_surrogate_pair_is_named_by_line():
    """JSON can say it, and no tokenizer reads it."""
    with pytest.raises(HeadscopeError, match="line 3: holds half of a surrogate pair .* which is no text. Remove it"):
        row_of(3, '{"text": "a\\ud800b"}', HeadscopeError)
    assert row_of(3, '{"text": "\\ud83d\\ude00"}', HeadscopeError) == {"text": "\N{GRINNING FACE}"}


def test_letters_of_a_parquet_file_that_are_no_utf_8(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.parquet"
    text = pyarrow.Array.from_buffers(
        pyarrow.string(), 1, [None, pyarrow.py_buffer(b"\0\0\0\0\4\0\0\0"), pyarrow.py_buffer(b"caf\xe9")]
    )
    parquet.write_table(pyarrow.table({"text": text}), path)
    with pytest.raises(HeadscopeError, match="this Parquet file is damaged .*can't decode byte 0xe9"):
        list(rows_of_parquet(path, HeadscopeError))
