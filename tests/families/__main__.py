"""`python -m tests.families [KIND ...]`: examine every architecture of transformers and write docs/families.md.

`python -m tests.families without` examines those that transformers has no sdpa for, and writes their part of the page.
"""

import sys
from pathlib import Path

from tests.families import tiny
from tests.families.examine import Seen
from tests.families.page import table, without
from tests.families.sweep import sweep

PAGE = Path("docs/families.md")
MARK = "\n## Without sdpa in transformers"


def main(kinds: list[str]) -> None:
    """Examine, print as it goes, and write the page, or its part about those without sdpa, when all were examined."""
    seen = []
    names = tiny.architectures()
    if kinds == ["without"]:
        names, kinds = [kind for kind in names if tiny.without_sdpa(kind)], []
    for seconds, one in sweep(kinds or names):
        seen.append(one)
        print(f"{seconds:.1f}s", *one[:9], *one.agreed, one.missed, one.note, sep="; ", flush=True)
    if not kinds:
        PAGE.write_text(written(seen), encoding="utf-8")


def written(seen: list[Seen]) -> str:
    """The page, whose first part stays as it is where only those without sdpa were examined."""
    first, second = ([one for one in seen if (one.how == "eager") == eager] for eager in (False, True))
    old = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    return (table(first) if first else old) + without(second)


if __name__ == "__main__":
    main(sys.argv[1:])
