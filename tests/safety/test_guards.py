"""Remote code, pickles and the network: never by default, and a test for each that fails when its guard goes."""

import json
import os
import socket
import subprocess
import sys

import pytest

from headscope.errors import ModelError
from headscope.hf import models
from tests.hf import tiny


@pytest.fixture
def hostile(tmp_path):
    """A model whose folder brings code, which would leave a file."""
    folder = tiny.save("bert", tmp_path / "hostile")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    config["model_type"] = "hostile"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from transformers import BertConfig, BertModel\n"
        "class Config(BertConfig):\n    model_type = 'hostile'\n"
        "class Model(BertModel):\n    config_class = Config\n"
    )
    return folder


def test_code_of_a_model_is_not_run(hostile, tmp_path, monkeypatch):
    # Whoever is asked "do you want to run it?" says yes here: only the guard itself may refuse.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ModelError, match="cannot be loaded"):
        models.load(str(hostile))
    assert not (tmp_path / "ran").exists()


def test_the_guard_is_what_keeps_it_from_running(hostile, tmp_path, monkeypatch):
    """With the guard taken away the same folder does run its code, so that the test above can fail."""
    import transformers

    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    real = transformers.AutoConfig.from_pretrained
    real(str(hostile), trust_remote_code=True, local_files_only=True)
    assert (tmp_path / "ran").exists()


def test_pickled_weights_are_not_executed(tmp_path):
    folder = tiny.save("bert", tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "ran"
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + os.fsencode(marker) + b"'\ntR.")
    with pytest.raises(ModelError, match="cannot be loaded"):
        models.load(str(folder))
    assert not marker.exists()


def test_the_packaged_model_opens_no_connection(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert models.load().name == models.PACKAGED_NAME


@pytest.fixture(params=["nothing listens", "nobody answers"])
def proxy(request):
    """A proxy that stands for a network that is not there: it refuses connections, or takes them and is silent."""
    if request.param == "nothing listens":
        yield "http://127.0.0.1:9"
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.slow
def test_an_unknown_name_ends_soon_without_a_network(proxy):
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), proxy)
    code = (
        "import time; from headscope.hf import models; import transformers; transformers.AutoModel\n"
        "begun = time.monotonic()\n"
        "try: models.load('nobody/nothing')\n"
        "except models.ModelError as error: print(time.monotonic() - begun, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    seconds, _, said = done.stdout.partition(" ")
    assert "the Hugging Face Hub cannot be reached" in said, done.stderr
    assert float(seconds) < 10
