"""Recordings of several processes: each has its part, and the parts make what one process would have recorded."""

from pathlib import Path

import pytest
import torch

import headscope as hs
from headscope.attention.masks.runs import Runs
from headscope.calls.lines import by_rows, line_of
from headscope.errors import RecordingError
from headscope.recording.folder import format as form
from headscope.recording.folder import stored_layer
from headscope.recording.ranks.gather import Part, assembled
from headscope.recording.ranks.share import Rank
from headscope.recording.recording import Layer, Recording
from tests.ranks import run_ranks
from tests.recording.test_store import example, lie, put, same


def test_two_processes_record_what_one_does(tmp_path):
    printed = run_ranks(Path(__file__).parent / "two_ranks.py", tmp_path, seconds=300)
    assert printed.count("equal") == 2


def layers(heads: slice, *, items: slice = slice(None), q: torch.Tensor | None = None) -> list[Layer]:
    """Some heads, and the keys of their groups, of a recording that is the same whenever it is made."""
    torch.manual_seed(3)
    q = torch.randn(3, 6, 5, 4) if q is None else q
    k, v = torch.randn(3, 3, 5, 4), torch.randn(3, 3, 5, 2)
    stop = torch.randint(1, 6, (3, 6, 5, 1), dtype=torch.int32)
    bias, lse = torch.randn(1, 6, 5, 5), torch.randn(3, 6, 5)
    groups = slice((heads.start or 0) // 2, (heads.stop or 6) // 2)
    runs = Runs(torch.zeros_like(stop)[items, heads], stop[items, heads])
    one = Layer(
        "0", "self", q[items, heads], k[items, groups], v[items, groups], runs, 0.5, None, bias[:, heads],
        torch.arange(6.0)[heads], lse[items, heads], number=0, head_numbers=tuple(range(6))[heads],
    )  # fmt: skip
    two = Layer("1", "self", k[items], k[items], None, None, 0.5, number=1)  # is on every rank
    return [one, two]


def part(number: int, of: int, group: tuple[int, ...], some: list[Layer]) -> Part:
    rank = Rank(number, of, group)
    return Part(str(rank), rank, some)


FIRST, LAST = slice(0, 2), slice(2, 6)


class TestWhole:
    def test_heads_lie_side_by_side(self):
        parts = [part(1, 2, (0, 1), layers(LAST)), part(0, 2, (0, 1), layers(FIRST))]
        assert same(Recording(assembled(parts, "x")), Recording(layers(slice(None))))

    def test_items_follow_one_another(self):
        parts = [part(i, 3, (i,), layers(slice(None), items=slice(i, i + 1))) for i in (2, 0, 1)]
        assert same(Recording(assembled(parts, "x")), Recording(layers(slice(None))))

    def test_heads_and_items(self):
        halves = [(slice(0, 1), FIRST), (slice(0, 1), LAST), (slice(1, 3), FIRST), (slice(1, 3), LAST)]
        groups = [(0, 1), (0, 1), (2, 3), (2, 3)]
        parts = [part(i, 4, groups[i], layers(heads, items=items)) for i, (items, heads) in enumerate(halves)]
        assert same(Recording(assembled(parts, "x")), Recording(layers(slice(None))))

    def test_copies_count_once(self):
        parts = [part(i, 2, (i,), layers(slice(None))) for i in range(2)]
        assert same(Recording(assembled(parts, "x")), Recording(layers(slice(None))))

    def test_one_group_of_keys_for_all_heads(self):
        q, k = torch.randn(1, 4, 3, 2), torch.randn(1, 1, 3, 2)
        made = [Layer("0", "self", q[:, i : i + 2], k, k, None, 1.0, head_numbers=(i, i + 1)) for i in (0, 2)]
        (layer,) = assembled([part(i, 2, (0, 1), [made[i]]) for i in range(2)], "x")
        assert torch.equal(layer.q, q)
        assert torch.equal(layer.k, k)

    def test_uneven_choices_of_heads_keep_their_keys(self):
        every = layers(slice(None))[:1]
        one = Layer("0", "self", every[0].q[:, :1], every[0].k[:, :1], None, None, 1.0, head_numbers=(0,))
        two = Layer("0", "self", every[0].q[:, 2:4], every[0].k[:, 1:2], None, None, 1.0, head_numbers=(2, 3))
        (layer,) = assembled([part(0, 2, (0, 1), [one]), part(1, 2, (0, 1), [two])], "x")
        for row, (mine, at) in enumerate([(one, 0), (two, 0), (two, 1)]):
            assert torch.equal(layer.head(row).weights(), mine.head(at).weights())

    def test_a_part_without_runs_or_bias_sees_all_and_adds_nothing(self):
        one, two = layers(FIRST)[0], layers(LAST)[0]
        two.runs = two.bias = None
        (layer,) = assembled([part(0, 2, (0, 1), [one]), part(1, 2, (0, 1), [two])], "x")
        for row in range(6):
            mine, at = (one, row) if row < 2 else (two, row - 2)
            torch.testing.assert_close(layer.head(row).weights(), mine.head(at).weights())


def alibi_part(i: int, axis: str, line: bool) -> Layer:
    """Half of the heads, or one of two items, with a bias by distance; the second item sees five keys of seven."""
    torch.manual_seed(5)
    q, heads = torch.randn(2, 4, 7, 3), slice(2 * i, 2 * i + 2) if axis == "heads" else slice(0, 4)
    items = slice(i, i + 1) if axis == "items" else slice(0, 2)
    written = -torch.arange(1.0, 5.0)[:, None, None] * (torch.arange(7)[:, None] - torch.arange(7)).abs()
    runs = (hs.causal() & hs.padding([7, 5])).runs(7, 7, torch.device("cpu"))
    runs = Runs(*(side[items] for side in runs))
    bias = written[None, heads]
    by_offset = line_of(by_rows(bias), runs) if line else None
    more = {"by_offset": by_offset} if line else {"bias": bias}
    q = q[items, heads]
    return Layer("0", "self", q, q, q, runs, 0.5, number=0, head_numbers=tuple(range(4))[heads], **more)


@pytest.mark.parametrize("lines", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("axis", ["heads", "items"])
def test_biases_by_distance_of_ranks_that_see_different_distances(axis, lines):
    parts = [alibi_part(i, axis, line) for i, line in enumerate(lines)]
    groups = (0, 1) if axis == "heads" else None
    (layer,) = assembled([part(i, 2, groups or (i,), [one]) for i, one in enumerate(parts)], "x")
    for i, one in enumerate(parts):
        for head in range(one.heads):
            for item in range(one.items):
                at = (2 * i + head, item) if axis == "heads" else (head, i)
                torch.testing.assert_close(layer.head(*at).weights(), one.head(head, item).weights())


def changed(**fields) -> list[Layer]:
    some = layers(LAST)
    for name, value in fields.items():
        setattr(some[0], name, value)
    return some


class TestRefusals:
    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ([part(0, 2, (0, 1), layers(FIRST))], "rank 1 of 2 is missing; what is there is rank 0 of 2"),
            ([part(0, 2, (0,), layers(FIRST))] * 2, "rank 0 is there 2 times; give each rank once"),
            (
                [part(0, 2, (0,), layers(FIRST)), part(1, 3, (1,), layers(FIRST))],
                "ranks of runs with 2 and 3 processes lie together",
            ),
            (
                [part(0, 2, (0, 1), layers(FIRST)), part(1, 2, (1,), layers(LAST))],
                "the ranks do not agree on who shares heads with whom",
            ),
            (
                [part(0, 2, (0, 1), layers(FIRST)), part(1, 2, (0, 1), layers(slice(0, 4)))],
                "each head belongs to one rank",
            ),
            (
                [part(0, 2, (0, 1), layers(FIRST)), part(1, 2, (0, 1), layers(LAST)[:1])],
                "rank 0 of 2 has 2 layers and rank 1 of 2 has 1, or others; record the same calls on every rank",
            ),
            (
                [part(0, 2, (0, 1), layers(FIRST)), part(1, 2, (0, 1), changed(scale=0.25))],
                "scale of layer '0' differs between rank 0 of 2 and rank 1 of 2; these ranks did not run",
            ),
            (
                [part(0, 2, (0, 1), layers(FIRST)), part(1, 2, (0, 1), changed(keys=[hs.Axis.positions(7)] * 3))],
                "has 5 queries and 5 keys on rank 0 of 2, and 5 and 7 on rank 1 of 2; pad the batches",
            ),
        ],
    )
    def test_ranks_that_do_not_fit_together(self, parts, message):
        with pytest.raises(RecordingError, match=message):
            assembled(parts, "x")


def saved(tmp_path: Path, name: str = "run") -> Path:
    """Two ranks that share heads, saved."""
    for number, heads in enumerate((FIRST, LAST)):
        Recording(layers(heads), "Model", Rank(number, 2, (0, 1))).save(tmp_path / name)
    return tmp_path / name


class TestFolders:
    def test_each_rank_has_its_own_in_one(self, tmp_path):
        folder = saved(tmp_path)
        assert sorted(p.name for p in folder.iterdir()) == ["rank-00000.headscope", "rank-00001.headscope"]
        want = Recording(layers(slice(None)), "Model")
        assert same(hs.load(folder), want)
        assert same(hs.load(list(folder.iterdir())), want)
        again = hs.load(folder).save(tmp_path / "whole")
        assert same(hs.load(again), want)
        alone = hs.load(folder / "rank-00001")
        assert str(alone) == "Recording(Model: 2 layers, 7 heads, rank 1 of 2)"
        assert [head for layer, head, _ in alone if layer == 0] == [2, 3, 4, 5]
        assert want.gather() is want

    def test_nothing_is_read_before_somebody_looks(self, tmp_path, monkeypatch):
        read = []
        digest = stored_layer.digest_of_file
        monkeypatch.setattr(stored_layer, "digest_of_file", lambda file: read.append(file) or digest(file))
        folder = saved(tmp_path)
        read.clear()
        recording = hs.load(folder)
        assert recording.layers[0].heads == 6
        assert recording.layers[0].items == 3
        assert not read
        _ = recording[0, 5].q
        assert len(read) == 2

    def test_a_rank_that_is_missing(self, tmp_path):
        folder = saved(tmp_path)
        (folder / "rank-00000.headscope").rename(tmp_path / "elsewhere.headscope")
        with pytest.raises(RecordingError, match=r"rank 0 of 2 is missing; what is there is .*rank-00001.headscope"):
            hs.load(folder)

    def test_a_whole_recording_among_them(self, tmp_path):
        folder, path = saved(tmp_path), example().save(tmp_path / "one")
        with pytest.raises(RecordingError, match=r"one.headscope is not the part of one of several processes"):
            hs.load([folder / "rank-00000.headscope", path])
        with pytest.raises(RecordingError, match="an empty list is not the part of one of several processes"):
            hs.load([])

    def test_a_folder_that_exists(self, tmp_path):
        folder = saved(tmp_path)
        recording = Recording(layers(FIRST), "Model", Rank(0, 2, (0, 1)))
        with pytest.raises(RecordingError, match=r"rank-00000.headscope: exists already"):
            recording.save(folder)
        recording.save(folder, overwrite=True)
        (tmp_path / "file").write_text("")
        with pytest.raises(RecordingError, match="the folder of the ranks cannot be made: "):
            recording.save(tmp_path / "file" / "x")

    @pytest.mark.parametrize("name", ["one", "one.headscope"])
    def test_a_whole_recording_of_that_name(self, tmp_path, name):
        example().save(tmp_path / "one")
        recording = Recording(layers(FIRST), "Model", Rank(0, 2, (0, 1)))
        with pytest.raises(RecordingError, match="is a whole recording, and rank 0 of 2 has only a part to save"):
            recording.save(tmp_path / name, overwrite=True)

    def test_a_link_is_not_followed(self, tmp_path):
        folder = saved(tmp_path)
        (folder / "rank-00000.headscope").rename(tmp_path / "elsewhere")
        (folder / "rank-00000.headscope").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(RecordingError, match=r"rank-00000.headscope: is a link; nothing outside the folder"):
            hs.load(folder)

    @pytest.mark.parametrize(
        "rank",
        [
            {"number": 0, "of": 2, "group": [1]},
            {"number": 0, "of": 10**12, "group": [0]},
            {"number": 2, "of": 2, "group": [2]},
            {"number": -1, "of": 2, "group": [-1]},
            {"number": 0, "of": 2, "group": [0, 0]},
        ],
    )
    def test_a_rank_that_is_none(self, tmp_path, rank):
        path = example().save(tmp_path / "one")
        assert form.decode("", (path / form.NAME).read_bytes()).rank is None
        lie(path, put("rank", value=rank))
        with pytest.raises(RecordingError, match="field rank: .* is no rank|Expected `int` >= 0"):
            hs.load(path)
