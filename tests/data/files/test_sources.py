"""Datasets of the hub by their id, from generated tables: columns, splits, labels, and refusals."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi

from helpers.image_files import png, random_images, save, save_all
from twostep.core.schema import UserError
from twostep.data.load import load_data, located

ROWS = random_images(12, (5, 7, 3))
HERE = "127.0.0.1"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def table(rows, column="image", as_images=True, **others):
    import datasets

    items = [row if isinstance(row, dict) else {"bytes": png(row), "path": None} for row in rows]
    made = datasets.Dataset.from_dict({column: items, **others})
    return made.cast_column(column, datasets.Image()) if as_images else made


@pytest.fixture
def published(monkeypatch):
    """Give a function that publishes tables by split under every id."""
    import datasets

    def publish(**splits):
        monkeypatch.setattr(HfApi, "dataset_info", lambda api, hub_id, timeout: None)
        monkeypatch.setattr(datasets, "load_dataset", lambda hub_id, config: splits)

    return publish


def loaded(**keys):
    return load_data("some-one/images.v2", make_valid=False, kwargs=keys)


def refused(name="some-one/images.v2"):
    with pytest.raises(UserError) as caught:
        load_data(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def channels_first(rows):
    return torch.as_tensor(rows).permute(0, 3, 1, 2)


@pytest.mark.parametrize("column", ["image", "img", "photo"])
@pytest.mark.parametrize("label", [{}, {"label": list(range(9))}, {"label": [None, *range(8)]}, {"label": ["a"] * 9}])
def test_images_and_whole_labels_are_taken(published, column, label):
    published(train=table(ROWS[:9], column, other=[0.5] * 9, **label), test=table(ROWS[9:], column))
    splits = loaded()
    assert torch.equal(splits.train, channels_first(ROWS[:9]))
    assert torch.equal(splits.test, channels_first(ROWS[9:]))
    assert (splits.spec.low, splits.spec.high, splits.spec.discrete) == (0.0, 255.0, True)
    if label.get("label") == list(range(9)):
        assert splits.train_labels.tolist() == list(range(9))
    else:
        assert splits.train_labels is None
    assert splits.test_labels is None


def test_validation_rows_join_training_and_other_splits_stay_away(published):
    published(validation=table(ROWS[4:6]), train=table(ROWS[:4]), test=table(ROWS[6:8]), unsupervised=table(ROWS[8:]))
    assert torch.equal(loaded().train, channels_first(ROWS[:6]))
    assert torch.equal(loaded().test, channels_first(ROWS[6:8]))


@pytest.mark.parametrize("split", ["train", "full"])
def test_one_split_is_cut_like_an_array(published, split):
    published(**{split: table(ROWS)})
    np.save("array.npy", ROWS)
    assert load_data("a/b", seed=5).digest() == load_data("array.npy", seed=5).digest()


def test_sizes_are_brought_to_one_by_the_key(published):
    published(train=table([*ROWS[:3], np.zeros((9, 9, 3), np.uint8)]), test=table(ROWS[:1]))
    line = refused()
    assert line.startswith("the hub's some-one/images.v2, train, row 3: the image is 9 x 9, that of the hub's ")
    assert "row 0 is 7 x 5" in line
    assert "image_size" in line
    assert loaded(image_size=4).spec.shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        (
            lambda: {"train": table(ROWS, "a", text=["x"] * 12).add_column("b", [1] * 12).remove_columns("a")},
            ", train: needs a column image (or img); found: text, b",
        ),
        (lambda: {"one": table(ROWS), "two": table(ROWS)}, ": none of its splits is called train; found: one, two"),
        (
            lambda: {"train": table(ROWS, as_images=False, image2=ROWS[:, 0, 0, 0].tolist()).remove_columns("image")},
            ", train: needs a column image (or img); found: image2",
        ),
        (
            lambda: {"train": table([*ROWS[:3], {"bytes": b"text", "path": None}])},
            ", train, row 3: not an image, or damaged: save it again, or remove it",
        ),
        (
            lambda: {"train": table([*ROWS[:3], {"bytes": None, "path": "gone.png"}])},
            ", train, row 3 (gone.png): names a file instead of holding an image: save the table with embedded images",
        ),
    ],
)
def test_unsuitable_sets_are_refused(published, splits, says):
    published(**splits())
    assert refused() == f"the hub's some-one/images.v2{says}"


def test_a_set_without_rows_is_refused(published):
    published(train=table(ROWS).select([]))
    assert refused() == "some-one/images.v2: contains no images"


def test_several_columns_of_images_need_a_known_name(published):
    import datasets

    both = table(ROWS, "left").add_column("right", [{"bytes": png(row), "path": None} for row in ROWS])
    published(train=both.cast_column("right", datasets.Image()))
    assert refused().endswith("train: needs a column image (or img); found: left, right")
    published(train=both.cast_column("right", datasets.Image()).rename_column("right", "image"))
    assert len(loaded().train) == 10


def test_what_cannot_be_had_is_one_line(monkeypatch):
    assert refused().startswith(
        "some-one/images.v2: no such file or folder, and the hub's some-one/images.v2 can't be loaded ("
    ), "offline"
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{HERE}:9")  # nothing listens there
    assert "refused" in refused()


@pytest.fixture
def private_hub(monkeypatch):
    """Serve the set to who has the token `secret`; return what each request carried."""
    from huggingface_hub import constants

    seen = []

    class Private(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("authorization")))
            known = self.headers.get("authorization") == "Bearer secret"
            content = b'{"id": "some-one/images.v2"}' if known else b"{}"
            self.send_response(200 if known else 401)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = HTTPServer((HERE, 0), Private)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{HERE}:{server.server_port}")
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_private_set_is_asked_for_with_the_users_login(private_hub, monkeypatch):
    import datasets

    splits = {"train": table(ROWS[:9]), "test": table(ROWS[9:])}
    monkeypatch.setattr(datasets, "load_dataset", lambda hub_id, config: splits)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "401" in refused()
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert len(loaded().train) == 9
    assert private_hub == [("/api/datasets/some-one/images.v2", auth) for auth in (None, "Bearer secret")]


@pytest.mark.parametrize("name", ["/nowhere/images", "a/b/c", "./a", "../a/b", "a/", "~/a", "a b/c"])
def test_what_can_be_no_id_is_not_looked_for_on_the_hub(name, monkeypatch):
    monkeypatch.setattr("twostep.data.load.from_hub", None)
    assert refused(name) == f"{name}: no such file or folder"


def test_a_folder_that_is_there_is_meant(tmp_path, monkeypatch):
    array = save_all(tmp_path / "some" / "one", random_images(10, (4, 4)))
    monkeypatch.setattr("twostep.data.load.from_hub", None)
    assert torch.equal(
        torch.cat([load_data("some/one", make_valid=False).train, load_data("some/one").test]).sort(0).values,
        torch.as_tensor(array).sort(0).values,
    )
    assert located("some/one") == str(tmp_path / "some" / "one")
    assert located("some/other") == "some/other"


def test_a_file_that_a_row_names_is_read_from_the_downloads_only(published, tmp_path, monkeypatch):
    secret = save(tmp_path / "secret.png", ROWS[3])
    published(train=table([*ROWS[:3], {"bytes": None, "path": str(secret)}, *ROWS[4:]]))
    assert "secret.png): names a file instead of holding an image" in refused()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert len(loaded().train) == 10
