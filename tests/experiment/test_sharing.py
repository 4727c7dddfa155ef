"""Sharing trained models: a folder, and the hub, played by a server of this process."""

import base64
import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.decomposition import PCA

import twostep as package
from helpers.estimators import circle, two_step
from twostep.core.files import without_folders
from twostep.core.schema import UserError
from twostep.experiment.sharing import from_pretrained, push_to_hub, save_pretrained
from twostep.models import Autoencoder, ExternalAutoencoder


@pytest.fixture(scope="module")
def shared(two_step_run, tmp_path_factory):
    return save_pretrained(two_step_run, tmp_path_factory.mktemp("shared") / "model")


def test_a_model_is_saved_and_loaded_to_the_bit(two_step_run, shared):
    one, two = package.load_module(two_step_run), from_pretrained(str(shared))
    assert one.state_dict().keys() == two.state_dict().keys()
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    assert not two.training
    draws = [model.sample(3, torch.Generator().manual_seed(0)) for model in (one, two)]
    assert torch.equal(*draws)


def test_the_folder_has_no_path_no_data_and_no_optimiser(two_step_run, shared, own_images):
    names = {str(path.relative_to(shared)) for path in shared.rglob("*") if path.is_file()}
    assert names >= {"README.md", "data.json", "gae_config.json", "metrics/test.json", "samples/samples.png"}
    assert {path.rsplit(".", 1)[1] for path in names} == {"md", "json", "png", "safetensors"}
    text = "".join(path.read_text() for path in shared.rglob("*") if path.suffix in (".md", ".json"))
    with safe_open(shared / "checkpoints" / "latest.safetensors", "pt") as file:
        text += json.dumps(dict(file.metadata()))
        assert {key.split(".")[1] for key in file.keys()} == {"model"}  # noqa: SIM118
    for folder in (own_images.parent, two_step_run.parent):
        assert str(folder) not in text
    card = (shared / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: twostep\n")
    assert "from_pretrained" in card
    assert "| two_step | log_likelihood |" in card
    huggingface_hub.ModelCard(card)


def test_commands_take_the_folder_as_a_run(twostep, shared, own_images, tmp_path):
    rows = tmp_path / "rows.npy"
    np.save(rows, np.load(own_images)["test"])
    assert twostep("sample", shared, "--to", tmp_path / "s.npy").status == 0
    assert twostep("encode", shared, rows, "--to", tmp_path / "z.npy").status == 0
    assert twostep("report", shared).status == 0
    (shared / "report.html").unlink()


def test_a_folder_with_files_is_not_overwritten(two_step_run, shared, tmp_path):
    before = sorted(shared.rglob("*"))
    with pytest.raises(UserError, match="exists"):
        save_pretrained(two_step_run, shared)
    assert sorted(shared.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    assert from_pretrained(save_pretrained(two_step_run, tmp_path / "empty"))
    with pytest.raises(UserError, match="state_dict"):
        save_pretrained(torch.nn.Linear(2, 2), tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]
    with pytest.raises(UserError):
        from_pretrained(tmp_path / "missing")


def test_estimators_are_shared_too(tmp_path):
    """One whose autoencoder is a user's own is loaded with that; of another object nothing could be made again."""
    rows = circle(60)
    fitted = two_step().fit(rows)
    loaded = from_pretrained(fitted.save_pretrained(tmp_path / "one"))
    x = torch.as_tensor(rows[:5], dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(loaded.log_prob(x), fitted.model_.log_prob(x))
    own = two_step(gae=ExternalAutoencoder.of(PCA(2).fit(rows), rows), gae_config=None).fit(rows)
    folder = save_pretrained(own, tmp_path / "two")
    with pytest.raises(UserError, match="gae=OBJECT"):
        from_pretrained(folder)
    assert from_pretrained(folder, gae=PCA(2).fit(rows)).sample(2).shape == (2, 3)
    linear = Autoencoder(torch.nn.Linear(3, 2), torch.nn.Linear(2, 3), latent_dim=2)
    with pytest.raises(UserError, match="given as an object"):
        save_pretrained(two_step(gae=linear, gae_config={"max_epochs": 1}).fit(rows), tmp_path / "three")


def test_damaged_weights_are_refused(shared, tmp_path):
    copy = shutil.copytree(shared, tmp_path / "copy")
    file = copy / "checkpoints" / "latest.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match="SHA-256"):
        from_pretrained(copy)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("digits against /a/b/c.npy, n", "digits against c.npy, n"),
        ("/a/b c/d.csv", "d.csv"),
        ("--config dataset=/a/b/x.csv", "--config dataset=x.csv"),
        ("bits/dim of 1/n", "bits/dim of 1/n"),
        ("runs/a", "runs/a"),
        ("see https://a.b/c/d", "see https://a.b/c/d"),
    ],
)
def test_absolute_paths_become_names(text, short):
    assert without_folders({"key": [text, 3, None]}) == {"key": [short, 3, None]}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a client needs to make a repository, upload files and download them."""

    files: dict[str, bytes]
    made: list[dict]

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/api/repos/create":
            self.made.append(json.loads(body))
            self.answer({"url": f"http://{self.headers['host']}/me/model"})
        elif "/preupload/" in self.path:
            self.answer(
                {
                    "files": [
                        {**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
                    ]
                }
            )
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self.answer({"commitOid": "1" * 40, "commitUrl": "/me/model/commit/1", "success": True})
        else:
            self.answer({})

    def do_GET(self):
        if "/resolve/" in self.path:
            name = self.path.split("/", 5)[5].partition("?")[0]
            self.answer(self.files[name], {"ETag": hashlib.sha1(self.files[name]).hexdigest()})
        elif "/tree/" in self.path:
            found = self.files.items()
            self.answer([{"type": "file", "path": name, "size": len(text), "oid": "2" * 40} for name, text in found])
        elif self.path.startswith("/api/models/me/model"):
            siblings = [{"rfilename": name} for name in self.files]
            self.answer({"id": "me/model", "sha": "1" * 40, "siblings": siblings, "tags": [], "private": True})
        else:
            self.send_error(404)

    def do_HEAD(self):
        self.do_GET()

    def answer(self, content, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        for name, value in {"X-Repo-Commit": "1" * 40, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    kind = type("Playing", (Hub,), {"files": {}, "made": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    constants = huggingface_hub.constants
    host, port = server.server_address
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{host}:{port}")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://{host}:{port}{template[1]}{template[2]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield kind
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_goes_to_the_hub_and_comes_back(two_step_run, hub):
    address = push_to_hub(two_step_run, "me/model", token="hf_x")
    assert address.endswith("me/model")
    assert "private" in (hub.made[0].get("visibility"), *hub.made[0])
    assert 'from_pretrained("me/model")' in hub.files["README.md"].decode()
    assert set(hub.files) >= {"README.md", "checkpoints/latest.safetensors", "gae_config.json"}
    one, two = package.load_module(two_step_run), from_pretrained("me/model", token="hf_x")
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_what_the_hub_has_not_is_one_clear_line(hub):
    with pytest.raises(UserError, match="not found on the hub") as caught:
        from_pretrained("me/other")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="owner/name"):
        push_to_hub("x", "name")
