"""`python -m tests.families [KIND ...]`: examine every architecture of transformers and write docs/families.md."""

import sys
from pathlib import Path

from tests.families import tiny
from tests.families.page import table
from tests.families.sweep import sweep


def main(kinds: list[str]) -> None:
    """Examine, print as it goes, and write the page when all were examined."""
    seen = []
    for seconds, one in sweep(kinds or tiny.architectures()):
        seen.append(one)
        print(f"{seconds:.1f}s", *one[:-2], *one.agreed, one.note, sep="; ", flush=True)
    if not kinds:
        Path("docs/families.md").write_text(table(seen), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
