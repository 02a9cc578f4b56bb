"""Reading tables of texts and labels: what is taken, and every file that is wrong."""

import json

import pytest

from headscope.errors import MissingExtra, TrainingError
from headscope.train import data
from headscope.train.data import Examples
from headscope.train.split import split
from headscope.train.tasks.classify import Labelled, classes_of
from headscope.train.tasks.listing import task_named


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_the_same_table_in_three_formats(tmp_path):
    rows = [{"text": "one, two", "label": "a"}, {"text": 'say "x"', "label": "b"}]
    csv = written(tmp_path / "x.csv", '\ufefftext,label\n"one, two",a\n"say ""x""",b\n')
    found = [
        data.read(path)
        for path in (csv, written(tmp_path / "x.jsonl", lines(*rows)), parquet(tmp_path / "x.parquet", rows))
    ]
    for one in found:
        assert [(x.text, x.label) for x in one.rows] == [("one, two", "a"), ('say "x"', "b")]
        assert one.task is task_named("classify")
    assert len({one.digest for one in found}) == 3


def test_tags_are_lists_or_words_with_spaces(tmp_path):
    rows = [{"words": ["The", "cat"], "tags": ["O", "B"]}, {"words": ["Rain"], "tags": ["O"]}]
    csv = written(tmp_path / "x.csv", "words,tags\nThe  cat,O B\nRain,O\n")
    found = [
        data.read(csv, task_named("tag")),
        data.read(written(tmp_path / "x.jsonl", lines(*rows))),
        data.read(parquet(tmp_path / "x.parquet", rows)),
    ]
    for one in found:
        assert one.task is task_named("tag")
        assert [(x.words, x.tags) for x in one.rows] == [(("The", "cat"), ("O", "B")), (("Rain",), ("O",))]
    assert classes_of(one.task, one.rows) == ["B", "O"]


def test_empty_rows_are_skipped_and_counted(tmp_path):
    path = written(tmp_path / "x.csv", "text,label\ngood,1\n  ,1\nbad,\n\nfine,10\nlost\n")
    found = data.read(path)
    assert found.rows == [Labelled(2, "good", "1"), Labelled(6, "fine", "10")]
    assert found.skipped == (3, 4, 7)


def test_labels_that_are_numbers_are_in_the_order_of_numbers(tmp_path):
    rows = [{"text": "a", "label": 10}, {"text": "b", "label": 9.0}, {"text": "c", "label": float("nan")}]
    found = data.read(written(tmp_path / "x.jsonl", lines(*rows)))
    assert (classes_of(found.task, found.rows), found.skipped) == (["9", "10"], (3,))


def test_columns_by_name_and_by_habit(tmp_path):
    path = written(tmp_path / "x.csv", "id,sentence,class,other\n1,a,x,p\n2,b,y,q\n")
    assert [x.label for x in data.read(path).rows] == ["x", "y"]
    named = data.read(path, columns={"text": "other", "label": "id", "question": None}).rows
    assert [(x.text, x.label) for x in named] == [("p", "1"), ("q", "2")]


@pytest.mark.parametrize(
    ("name", "content", "options", "match"),
    [
        ("none.csv", None, {}, "there is no such file. Give a .csv, .tsv, .jsonl, .parquet file"),
        ("x.xlsx", "a", {}, ".xlsx is not read. Give .csv, .tsv, .jsonl, .parquet"),
        (
            "x.csv",
            b"PK\x03\x04....",
            {},
            "this is a zip archive, such as a spreadsheet. Save it as",
        ),
        ("x.parquet", "text,label\na,b\n", {}, "by its first bytes this is something else, not what .parquet says"),
        ("x.csv", b"PAR1....", {}, "by its first bytes this is a Parquet file, not what .csv says"),
        ("x.parquet", b"PAR1....", {}, "this Parquet file is damaged"),
        ("x.csv", "", {}, "there are no rows in it. Give one example in each row"),
        ("x.csv", "text,label\n", {}, "there are no rows in it. Give one example in each row"),
        (
            "x.csv",
            b"text,label\ncaf\xe9,a\n",
            {},
            r"this is no UTF-8 text \(byte .* is 0xe9\). Name its encoding, for exam",
        ),
        (
            "x.jsonl",
            b'{"text": "caf\xe9"}\n',
            {},
            r"this is no UTF-8 text \(byte .* is 0xe9\). Name its encoding, for exam",
        ),
        ("x.csv", 'text,label\n"a"b,c\n', {}, "this cannot be read as comma-separated values"),
        ("x.jsonl", "text,label\na,b\n", {}, "line 1: this is no JSON object. Give one in each line"),
        ("x.jsonl", '{"text": "a"}\n[1]\n', {}, "line 2: this is no JSON object. Give one in each line"),
        ("x.csv", "a,b\n1,2\n", {}, "the columns a, b do not say what to train for. Name it with --task classify|tag"),
        (
            "x.csv",
            "a,label\n1,2\n",
            {},
            "no column is called text or .*; the columns are a, label. Name the one to use with --text-column",
        ),
        (
            "x.csv",
            "text,label\n1,2\n",
            {"columns": {"question": "text"}},
            "--question-column: --task classify reads --text-column and --label-column. Leave it out",
        ),
        (
            "x.csv",
            "text,b\n1,2\n",
            {"columns": {"label": "c"}, "task": "classify"},
            "there is no column 'c'; the columns are text, b",
        ),
        ("x.csv", "text,label\n,a\nb,\n", {}, "all 2 rows lack 'text' or 'label'. Give a text and a label in each row"),
        (
            "x.csv",
            "text,tags\na b,O\n",
            {"task": "tag"},
            "line 2: 2 words in 'text' and 1 tags in 'tags'",
        ),
        (
            "x.jsonl",
            '{"text": ["a"], "label": "O"}\n',
            {"task": "classify"},
            "line 1: 'text' holds a list. One tag for each word is --task tag",
        ),
    ],
)
def test_a_file_that_is_wrong_is_said_in_a_line(tmp_path, name, content, options, match):
    path = tmp_path / name
    if content is not None:
        written(path, content)
    if "task" in options:
        options = options | {"task": task_named(options["task"])}
    with pytest.raises(TrainingError, match=match):
        data.read(path, **options)


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    path = parquet(tmp_path / "x.parquet", [{"text": "a", "label": "b"}])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=".parquet needs pyarrow. pip install pyarrow"):
        data.read(path)


def test_a_task_of_no_name():
    with pytest.raises(TrainingError, match="--task guess: there is no such task. Give classify, tag"):
        task_named("guess")


def examples(labels, texts=None):
    texts = texts or [f"text {i}" for i in range(len(labels))]
    rows = [Labelled(i + 2, text, label) for i, (text, label) in enumerate(zip(texts, labels, strict=True))]
    return Examples(task_named("classify"), rows)


def texts_of(part):
    return [x.text for x in part.rows]


def test_the_share_is_drawn_by_the_seed_and_leaves_every_label_in_the_training():
    everything = examples(["a"] * 20 + ["b"] * 20 + ["rare"])
    for seed in range(30):
        train, held = split(everything, 0.4, seed)
        assert len(train) + len(held) == 41
        assert set(texts_of(train)) | set(texts_of(held)) == set(texts_of(everything))
        assert "rare" in [x.label for x in train.rows]
    assert texts_of(split(everything, 0.4, 1)[1]) == texts_of(split(everything, 0.4, 1)[1])
    assert texts_of(split(everything, 0.4, 1)[1]) != texts_of(split(everything, 0.4, 2)[1])


def test_every_label_has_its_share():
    for seed in range(10):
        _, held = split(examples("a" * 60 + "b" * 30 + "c" * 10), 0.2, seed)
        assert [sum(x.label == label for x in held.rows) for label in "abc"] == [12, 6, 2]


def test_equal_texts_are_never_on_both_sides():
    everything = examples(["a", "b"] * 30, [f"text {i % 12}" for i in range(60)])
    for seed in range(10):
        train, held = split(everything, 0.3, seed)
        assert not set(texts_of(train)) & set(texts_of(held))
        assert held.rows


@pytest.mark.parametrize(("share", "labels"), [(0.0, "abab"), (0.2, "ab"), (1.0, "a")])
def test_a_share_that_leaves_nothing(share, labels):
    with pytest.raises(TrainingError, match="examples leave .* to train with and .* to evaluate"):
        split(examples(labels), share, 0)


def test_labels_that_cannot_be_learned():
    def check(train, held):
        task_named("classify").check(examples(train).rows, examples(held).rows)

    check("ab", "b")
    with pytest.raises(TrainingError, match="every label is 'a'; there is nothing to learn"):
        check("aa", "a")
    with pytest.raises(TrainingError, match="line 3: the labels 'c', 'd' never occur in training, which has 'a', 'b'"):
        check("ab", "acd")
