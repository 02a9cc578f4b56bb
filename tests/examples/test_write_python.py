"""The example that writes Python, shortened: a few steps, a stop, and the rest from the checkpoint."""

import pytest
import torch

import headscope as hs
from examples import write_python


def test_held_out_modules_are_none_of_those_learned_from():
    known, unseen = write_python.sources(60)
    assert (len(known), len(unseen)) == (57, 3)
    assert not set(unseen) & set(known)


def test_a_bigram_model_that_has_seen_every_pair_knows_what_follows():
    training = torch.arange(write_python.VOCABULARY).repeat(30)
    assert write_python.bigram(training, training[:64].view(2, 32)) < 0.1
    even = float(torch.tensor(write_python.VOCABULARY).log())
    assert write_python.bigram(training, training[:64].flip(0).view(2, 32)) > even


def test_some_rows_repeat_a_passage_and_the_others_are_text():
    rows = write_python.batch(torch.arange(4000), torch.Generator().manual_seed(0))
    assert rows.shape == (write_python.BATCH, write_python.LENGTH + 1)
    steps = rows.diff(dim=1)
    assert [bool((step == 1).all()) for step in steps] == [False] * 3 + [True] * (write_python.BATCH - 3)
    for row in rows[:3].tolist():
        period = row.index(row[0], 1)
        assert 12 <= period <= 64
        assert row[period:] == row[:-period]


def test_rotary_positions_and_none_in_turns():
    model = write_python.writer()
    rotary = [layer.attention.part.rotary for layer in model.decoder.layers]
    assert [one is None for one in rotary] == [False, True, False, True]


def test_in_short_with_a_stop(tmp_path, capsys, monkeypatch):
    for name, value in (("WIDTH", 32), ("LENGTH", 64), ("BATCH", 4), ("EVERY", 2), ("WRITTEN", 5)):
        monkeypatch.setattr(write_python, name, value)
    whole = write_python.main(4, str(tmp_path / "whole"), modules=20)
    assert set(whole) == {"loss", "bigram", "previous", "induction"}
    assert (tmp_path / "whole" / "heads.png").stat().st_size > 5000
    kept = hs.load(tmp_path / "whole" / "heads" / "step-000004.headscope")
    assert kept[0, 0].queries.ids[:64] == kept[0, 0].queries.ids[64:]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(write_python.checkpoint, "save", saving_once(write_python.checkpoint.save, stop))
        with pytest.raises(KeyboardInterrupt):
            write_python.main(4, str(tmp_path / "stopped"), modules=20)
    resumed = write_python.main(4, str(tmp_path / "stopped"), modules=20)
    assert resumed == whole
    assert write_python.main(4, str(tmp_path / "whole"), modules=20) == whole  # all done already
    assert "def read(path, encoding=None):" in capsys.readouterr().out


def saving_once(save, then):
    """Saves a checkpoint, and then something happens."""

    def first(*args, **options):
        save(*args, **options)
        then()

    return first


@pytest.mark.slow
def test_the_whole_example(tmp_path):
    found = write_python.main(to=str(tmp_path))
    assert found["loss"] < 0.75 * found["bigram"]
    assert found["previous"] >= 0.5
    assert found["induction"] >= 0.3
