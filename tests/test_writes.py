"""One way to write: only `files/system.py` makes, changes or removes anything on a disk. The guard can fail."""

from pathlib import Path

import pytest

from tests import writes

SOURCE = Path(__file__).parents[1] / "src" / "headscope"

# Who else does, and why it may: each is needed still.
ELSEWHERE = {
    ("cli/endings.py", "open"): "the null device, in the place of a closed stream",
    ("cli/endings.py", "os.open"): "the null device, in the place of a closed pipe",
    (
        "server/run.py",
        "tempfile.TemporaryDirectory",
    ): "maps that have no place beside a recording; gone with the process",
    ("share/pack.py", "open"): "an entry of a zip file, whose bytes go through files/replace_file.py",
    ("share/pack.py", "tempfile.TemporaryDirectory"): "the page before it is packed; gone when it is",
    ("share/unpack.py", "tempfile.TemporaryDirectory"): "what was unpacked; gone with the process",
    ("train/board.py", "SummaryWriter"): "TensorBoard writes its events itself",
    (
        "train/finetuning.py",
        "save_pretrained",
    ): "into a folder beside the place: files/library_files.py moves them there",
    ("train/trainer.py", "tempfile.TemporaryDirectory"): "the Trainer of transformers reads its state from a file",
    ("train/trainer.py", "write_text"): "the same state",
}


def test_only_one_file_changes_a_disk():
    found = {(change.file, change.name): change for change in writes.changes(SOURCE)}
    unknown = [found[key] for key in sorted(found.keys() - ELSEWHERE.keys())]
    assert not unknown, "write through headscope.files, or say here why not"
    assert not ELSEWHERE.keys() - found.keys(), "these no longer write, so they need no reason"


def test_the_reader_sees_the_calls_of_the_system_itself():
    """A reader that found nothing would find nothing wrong."""
    calls = list(writes.calls(writes.ast.parse((SOURCE / writes.SYSTEM).read_text())))
    assert {"os.open", "os.write", "os.fsync", "os.replace", "os.unlink", "fcntl.flock"} <= {name for name, _ in calls}


@pytest.mark.parametrize(
    "statement",
    [
        "open('a', 'w')", "open('a', mode='ab')", "open('a', mode)", "path.open('r+')", "path.open(mode='x')",
        "path.open(mode=mode)",
        "import os\nos.open('a', os.O_RDWR | os.O_CREAT)", "import os\nos.open('a', flags)",
        "import os\nos.replace(a, b)",
        "import os as system\nsystem.unlink('a')", "from os import fsync\nfsync(1)",
        "from os import replace as move\nmove(a, b)",
        "def f():\n    import shutil\n    shutil.rmtree('a')", "import tempfile\ntempfile.mkdtemp()",
        "from tempfile import TemporaryDirectory\nwith TemporaryDirectory() as a: pass",
        "path.write_text('a')", "path.write_bytes(b'a')", "path.replace(other)", "path.rename(other)", "path.unlink()",
        "path.mkdir(parents=True)", "path.touch()", "path.symlink_to(other)", "model.save_pretrained(folder)",
        "from safetensors.torch import save_file\nsave_file({}, 'a')", "torch.save(x, 'a')", "np.save('a', x)",
        "gzip.open('a', 'wt')",
    ],
)  # fmt: skip
def test_a_writer_is_found(tmp_path, statement):
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "page.py").write_text(statement)
    assert [(found.file, found.line > 0) for found in writes.changes(tmp_path)] == [("view/page.py", True)]


@pytest.mark.parametrize(
    "statement",
    [
        "open('a')", "open('a', 'rb')", "path.open('rb')", "path.open(encoding='utf-8')",
        "import os\nos.open('a', os.O_RDONLY)",
        "'a'.replace('b', 'c')", "dataclasses.replace(x, a=1)", "import os\nos.listdir('a')", "recording.save('a')",
        "import shutil\nshutil.which('c++')", "webbrowser.open(url)", "self.deferred.open(layer)",
        "wave.open(str(path), 'rb')",
        "from headscope.files import system\nsystem.remove(a)",
    ],
)  # fmt: skip
def test_a_reader_is_none(statement):
    assert not list(writes.calls(writes.ast.parse(statement)))
