"""The examples that read dates and digits, shortened: a few steps, a stop, and the rest from the checkpoint."""

import pytest
import torch

import headscope as hs
from examples import read_digits, translate_dates
from headscope.train import checkpoint


def test_dates_are_written_as_babel_writes_them_and_every_letter_has_its_field():
    import datetime

    ordinal = datetime.date(2021, 3, 5).toordinal()
    date = translate_dates.Date(ordinal, "es", "full")
    assert date.text == "viernes, 5 de marzo de 2021"
    assert date.fields == "EEEEEEE  d    MMMMM    yyyy"
    assert date.iso == "2021-03-05"
    assert translate_dates.Date(ordinal, "ja", "long").fields == "yyyy M d "
    for language in translate_dates.LANGUAGES:
        date = translate_dates.Date(ordinal, language, "medium")
        digits = {
            field: "".join(x for x, y in zip(date.text, date.fields, strict=True) if y == field) for field in "yd"
        }
        assert (digits["y"], digits["d"].lstrip("0")) == ("2021", "5")


def test_days_of_the_test_are_never_trained_on():
    days = [{date.iso for date in translate_dates.dates(400, unseen=unseen, seed=0)} for unseen in (False, True)]
    assert not days[0] & days[1]


def test_dates_in_short(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(translate_dates, "WIDTH", 32)
    found = translate_dates.main(3, str(tmp_path), count=60, tested=40)
    assert set(found) == {"exact", "aligned", "seconds"}
    assert "20 languages" in capsys.readouterr().out
    assert (tmp_path / "alignment.png").stat().st_size > 5000
    kept = hs.load(tmp_path / "heads" / "step-000003.headscope")
    assert [layer.kind for layer in kept.layers] == ["self", "self", "self", "cross", "self", "cross"]
    assert "".join(label.removeprefix("→ ") for label in kept[3, 0].queries.labels).count("-") == 2
    assert kept[3, 0].keys.kind == "tokens"


def test_the_best_head_is_found():
    """A head that looks at the right letters is told from those that look anywhere."""
    torch.manual_seed(0)
    found = translate_dates.dates(6, unseen=True, seed=3)
    letters = "".join(sorted({letter for date in found for letter in date.text}))
    share, layer, head = translate_dates.alignment(translate_dates.transformer(len(letters)), found, letters)
    assert 0 <= share < 1
    assert layer in (3, 5)
    assert head in range(4)


def test_digits_in_short(tmp_path, capsys):
    found = read_digits.main(2, str(tmp_path))
    assert 0 <= found["accuracy"] <= 1
    assert "450 digits never seen" in capsys.readouterr().out
    assert (tmp_path / "heads.png").stat().st_size > 5000
    kept = hs.load(tmp_path / "heads" / "step-000002.headscope")
    assert kept[2, 3, 9].keys.grid == (4, 4)
    assert kept[2, 3, 9].keys.special == (True, *(16 * [False]))


def test_a_stopped_training_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    """Stopped after step 2 of 3; the weights in the end are those of a training without a stop."""
    monkeypatch.setattr(read_digits, "WIDTH", 8)
    monkeypatch.setattr(read_digits, "BATCH", 4)
    monkeypatch.setattr(read_digits, "EVERY", 2)
    torch.manual_seed(1)
    x, y = torch.rand(12, 8, 8), torch.randint(10, (12,))

    def trained(to, stop=False):
        torch.manual_seed(2)
        model = read_digits.VisionTransformer()
        if stop:
            save = checkpoint.save

            def saved(*args):
                save(*args)
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(checkpoint, "save", saved)
                with pytest.raises(KeyboardInterrupt):
                    read_digits.train(model, x, y, x[:2], 3, to)
            torch.rand(3)
            model = read_digits.VisionTransformer()
        read_digits.train(model, x, y, x[:2], 3, to)
        return model.state_dict()

    whole, stopped = trained(tmp_path / "a"), trained(tmp_path / "b", stop=True)
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_dates_in_full(tmp_path):
    found = translate_dates.main(to=str(tmp_path))
    assert found["exact"] >= 0.97
    assert found["aligned"] >= 0.85


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_digits_in_full(tmp_path):
    assert read_digits.main(to=str(tmp_path))["accuracy"] >= 0.97
