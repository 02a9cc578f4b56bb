"""`headscope share`: what goes in comes out, the same bytes every time, and a hostile file is refused unopened."""

import json
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import headscope as hs
from headscope.cli.app import run
from headscope.errors import HeadscopeError, RecordingError
from headscope.files import zip_reader
from headscope.share.manifest import LARGEST, NAME, decode, expected
from headscope.share.pack import share_page, share_recording
from headscope.share.unpack import is_shared, read_manifest, recording_of, unpack
from tests.raises import RAISED


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording with two layers, and its folder."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(10, 5, 7, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    with hs.record(model) as recording:
        model(torch.randn(1, 3, 10))
    recording.tokens(["good", "morning", "all"])
    return recording, recording.save(tmp_path_factory.mktemp("recorded") / "it")


@pytest.fixture
def shared(recorded, tmp_path):
    share_recording(recorded[1], tmp_path / "it.zip", "headscope record ...", "A title")
    return tmp_path / "it.zip"


def test_what_goes_in_comes_out(recorded, shared, tmp_path):
    folder, content = recording_of(shared)
    assert (content.title, content.command) == ("A title", "headscope record ...")
    assert content.torch == torch.__version__
    for layer, head, one in hs.load(folder):
        assert torch.equal(one.weights(), recorded[0][layer, head].weights())
        assert one.keys.labels == ("good", "morning", "all")
    with zipfile.ZipFile(shared) as plain:  # any program that unzips will do
        assert plain.testzip() is None
        plain.extractall(tmp_path / "unzipped")
    page = (tmp_path / "unzipped" / "index.html").read_text(encoding="utf-8")
    assert "A title" in page
    assert "morning" in page
    assert read_manifest(shared) == content


def test_the_same_content_is_the_same_file(recorded, shared, tmp_path):
    share_recording(recorded[1], tmp_path / "again.zip", "headscope record ...", "A title")
    assert (tmp_path / "again.zip").read_bytes() == shared.read_bytes()


def test_the_command_line(recorded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["headscope", "share", "it", "-o", "a b.zip"])
    assert run(["share", str(recorded[1]), "-o", "it.zip", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["command"] == "headscope share it -o 'a b.zip'"
    assert set(made["files"]) >= {"index.html", "recording.headscope/recording.json"}
    assert run(["view", "it.zip", "-o", "seen.html"]) == 0
    assert "morning" in Path("seen.html").read_text(encoding="utf-8")
    assert "morning" in capsys.readouterr().out
    assert run(["heads", "it.zip", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 10
    assert run(["view", "it.zip", "--model", "x"]) == 2
    assert "it.zip is a recording, which has its model and text in it" in capsys.readouterr().err
    assert run(["share", "seen.html", "-o", "page.zip", "--made-by", "mine", "--title", "T"]) == 0
    assert "T: 1 file," in capsys.readouterr().out
    assert read_manifest(Path("page.zip")).command == "mine"


def test_a_recording_by_its_short_name_and_of_two_processes(recorded, tmp_path):
    short = recorded[1].with_name("it")
    share_recording(short, tmp_path / "short.zip", "c")
    assert read_manifest(tmp_path / "short.zip").title == "it"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["share", "nothing", "-o", "a.zip"], "nothing is neither the folder of a recording nor a page"),
        (["share", ".", "-o", "a.rar"], "an unknown extension. Give a name that ends with .zip"),
        (["share", "other.html", "-o", "a.zip"], "other.html: was not written by headscope; give a page of it"),
        (["view", "page.zip"], "page.zip: holds a page and no recording; unzip it and open index.html"),
        (["view", "other.zip"], "other.zip: has an entry 'a.txt', which headscope never writes; nothing was unpacked"),
    ],
)
def test_what_cannot_be_shared_or_seen(tmp_path, monkeypatch, capsys, arguments, match):
    monkeypatch.chdir(tmp_path)
    Path("other.html").write_text("<p>hello")
    Path("page.html").write_text('<meta name="generator" content="headscope 1">')
    share_page(Path("page.html"), Path("page.zip"), "c")
    with zipfile.ZipFile("other.zip", "w") as other:
        other.writestr("a.txt", "hello")
    assert run(arguments) == 2
    assert re.search(match, capsys.readouterr().err)
    RAISED.printed(match)
    assert not Path("a.zip").exists()


def rewritten(source, target, change):
    """A copy of a zip, with a change made to its entries: {name: bytes}, and infos to write them with."""
    with zipfile.ZipFile(source) as old:
        entries = {info.filename: (info, old.read(info)) for info in old.infolist()}
    entries = change(entries) or entries
    with zipfile.ZipFile(target, "w") as new:
        for name, (info, content) in entries.items():
            info.filename = name
            new.writestr(info, content)
    return target


def entry(name, mode=0o100644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a\\..\\evil", "recording.headscope/../../evil", "C:evil", "x/"]
)
def test_a_path_out_of_the_folder_is_refused(shared, tmp_path, name):
    bad = rewritten(shared, tmp_path / "bad.zip", lambda e: e | {name: (entry(name), b"evil")})
    (tmp_path / "in").mkdir()
    with pytest.raises(RecordingError, match="which headscope never writes; nothing was unpacked"):
        unpack(bad, tmp_path / "in")
    assert list((tmp_path / "in").iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


def test_a_link_is_refused(shared, tmp_path):
    def link(entries):
        entries["index.html"] = (entry("index.html", 0o120777), b"/etc/passwd")

    with pytest.raises(RecordingError, match="has an entry 'index.html', which headscope never writes"):
        read_manifest(rewritten(shared, tmp_path / "bad.zip", link))


def test_a_bomb_is_refused(shared, tmp_path):
    bomb = entry("index.html")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    bad = rewritten(shared, tmp_path / "bad.zip", lambda e: e | {"index.html": (bomb, bytes(100 * 2**20))})
    with pytest.raises(
        RecordingError, match=r"bad.zip: \d+ bytes that would become \d+; nothing that headscope writes"
    ):
        read_manifest(bad)


def test_entries_that_lie_in_each_other_are_refused(shared, tmp_path, monkeypatch):
    def packed(entries):
        return sum(one.compress_size for one in entries)

    with zipfile.ZipFile(shared) as file:
        entries = file.infolist()
        entries[0].compress_size = 2 * shared.stat().st_size
    with pytest.raises(RecordingError, match="nothing that headscope writes does, so it stays packed"):
        zip_reader.check(shared, entries, expected, RecordingError)


def test_a_size_that_is_not_true_is_refused(shared, tmp_path):
    """The directory at the end says less, or more, than what comes out."""
    content = shared.read_bytes()
    with zipfile.ZipFile(shared) as file:
        size = file.getinfo("index.html").file_size
    for other in (size - 1, size + 1):
        place = content.rindex(b"PK\x01\x02", 0, content.index(b"index.html", content.index(b"PK\x01\x02")))
        bad = bytearray(content)
        bad[place + 24 : place + 28] = struct.pack("<I", other)
        (tmp_path / "bad.zip").write_bytes(bad)
        with (
            zip_reader.opened(tmp_path / "bad.zip", expected, RecordingError) as packed,
            pytest.raises(RecordingError, match="index.html (cannot be unpacked|is not as long as the directory says)"),
        ):
            list(packed.blocks("index.html"))


def test_altered_content_is_refused(shared, tmp_path):
    def altered(entries):
        info, content = entries["index.html"]
        entries["index.html"] = (info, content[:-1] + b"!")

    (tmp_path / "in").mkdir()
    with pytest.raises(RecordingError, match="index.html was altered or damaged after it was packed"):
        unpack(rewritten(shared, tmp_path / "bad.zip", altered), tmp_path / "in")


def test_a_manifest_that_does_not_fit_is_refused(shared, tmp_path):
    def without(entries):
        del entries["recording.headscope/recording.json"]

    with pytest.raises(RecordingError, match="names other files than there are"):
        read_manifest(rewritten(shared, tmp_path / "bad.zip", without))

    def nothing(entries):
        del entries[NAME]

    with pytest.raises(RecordingError, match="holds no share.json; it is damaged, or something else"):
        read_manifest(rewritten(shared, tmp_path / "bad.zip", nothing))
    with pytest.raises(RecordingError, match="field format: 2; this headscope reads format 1"):
        decode("x", b'{"format": 2}')
    with pytest.raises(RecordingError, match="headscope did not write this, or it is damaged"):
        decode("x", b'{"format": 1, "title": 3}')
    with pytest.raises(RecordingError, match="headscope did not write this"):
        decode("x", b"[" * 10**5)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"words"])
def test_what_is_no_zip(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(RecordingError, match="is not a zip file that can be read"):
        read_manifest(tmp_path / "x.zip")
    assert is_shared(tmp_path / "x.zip") == content.startswith(b"PK")
    assert not is_shared(Path(__file__))


def test_one_name_twice_another_packing_and_too_long(shared, tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as two:
        two.writestr("index.html", "a")
        with pytest.warns(UserWarning, match="Duplicate name"):
            two.writestr("index.html", "b")
    with pytest.raises(RecordingError, match="has 2 entries, or one name twice"):
        read_manifest(tmp_path / "two.zip")
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as other:
        other.writestr("index.html", "a")
    with pytest.raises(RecordingError, match="is encrypted, or packed in a way that headscope never uses"):
        read_manifest(tmp_path / "lzma.zip")
    with (
        zip_reader.opened(shared, expected, RecordingError) as packed,
        pytest.raises(RecordingError, match=r"index.html is \d+ bytes long and may have 5"),
    ):
        packed.read("index.html", 5)
    assert LARGEST < zip_reader.ALWAYS


def test_a_full_disk_is_seen_before(tmp_path):
    with pytest.raises(HeadscopeError, match=r"bytes are to be unpacked there and \d+ are free; make room first"):
        zip_reader.check_room(tmp_path, 2**62, HeadscopeError)


@pytest.mark.slow
def test_what_was_unpacked_goes_when_the_program_ends(shared):
    code = (
        "import sys; from pathlib import Path; from headscope.share.unpack import recording_of; "
        "print(recording_of(Path(sys.argv[1]))[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, shared], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("recording.headscope")
    assert not Path(done.stdout.strip()).exists()
