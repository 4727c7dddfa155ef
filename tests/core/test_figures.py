"""Figures: the position and contrast of each pixel, and what is written to which file."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from twostep.core import figures
from twostep.core.schema import DataSpec, UserError


def spec(*shape, low=0.0, high=255.0):
    return DataSpec(name="data", shape=shape, size=9, low=low, high=high)


def test_a_grid_lays_images_out_row_by_row_with_lines_between():
    images = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 2, 3) * 51
    canvas = figures.grid(images, spec(1, 2, 3))
    assert canvas.shape == (1, 2 * 3 - 1, 3 * 4 - 1)
    for index in range(5):
        row, column = divmod(index, 3)
        tile = canvas[0, row * 3 : row * 3 + 2, column * 4 : column * 4 + 3]
        assert torch.allclose(tile, torch.full((2, 3), index / 5))
    assert (canvas[0, 2] == 1).all()
    assert (canvas[0, :, 3] == 1).all()
    assert (canvas[0, 3:, 8:] == 1).all()


def test_a_grid_of_one_row():
    images = torch.rand(6, 3, 4, 4)
    canvas = figures.grid(images, spec(3, 4, 4, high=1.0), columns=3)
    assert canvas.shape == (3, 9, 14)
    assert torch.equal(canvas[:, 5:, :4], images[3])


def test_all_images_have_the_contrast_of_the_data():
    images = torch.tensor([-20.0, -10.0, 0.0, 30.0, 50.0]).reshape(5, 1, 1, 1)
    canvas = figures.grid(images, spec(1, 1, 1, low=-10, high=30), columns=5)
    assert canvas[0, 0, ::2].tolist() == [0.0, 0.0, 0.25, 1.0, 1.0]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_saved_grid_holds_its_pixels_magnified(tmp_path, channels, mode):
    canvas = torch.rand(channels, 5, 7)
    figures.save_png(canvas, tmp_path / "new" / "x.png", tile=20)
    with Image.open(tmp_path / "new" / "x.png") as image:
        assert (image.mode, image.size) == (mode, (21, 15))
        pixels = np.asarray(image).reshape(15, 21, channels)[1::3, 1::3]
    assert np.array_equal(pixels, (canvas * 255).round().byte().permute(1, 2, 0).numpy())


def test_large_tiles_are_not_magnified(tmp_path):
    figures.save_png(torch.rand(1, 60, 60), tmp_path / "x.png", tile=60)
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (60, 60)


def test_samples_of_images_and_vectors_are_written_in_units_of_the_data(tmp_path):
    images, vectors = torch.rand(4, 1, 3, 3) * 300 - 20, torch.randn(4, 2)
    for name in ("x.npy", "x.npz", "x.png"):
        figures.write_samples(images, spec(1, 3, 3), tmp_path / "new" / name)
    assert np.array_equal(np.load(tmp_path / "new" / "x.npy"), images.numpy())
    with np.load(tmp_path / "new" / "x.npz") as file:
        assert file.files == ["samples"]
        assert np.array_equal(file["samples"], images.numpy())
    with Image.open(tmp_path / "new" / "x.png") as image:
        tile = np.asarray(image)[9 : 3 * 19 : 19, 9 : 3 * 19 : 19]
    assert np.array_equal(tile, images[0, 0].clamp(0, 255).round().byte().numpy())
    figures.write_samples(vectors, spec(2), tmp_path / "vectors.npy")
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), vectors.numpy())


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.PNG", "x.npy.gz"])
def test_other_endings_are_refused_and_nothing_is_made(tmp_path, name):
    with pytest.raises(UserError, match=r"write to a \.png, \.csv, \.parquet, \.npz or \.npy file"):
        figures.write_samples(torch.rand(4, 1, 3, 3), spec(1, 3, 3), tmp_path / "new" / name)
    assert not any(tmp_path.iterdir())


def test_vectors_are_not_images(tmp_path):
    with pytest.raises(UserError, match="are not images"):
        figures.write_samples(torch.rand(4, 2), spec(2), tmp_path / "x.png")


@pytest.mark.parametrize("name", ["folder.npy", "file/x.npz"])
def test_a_path_that_cannot_be_written_is_refused(tmp_path, name):
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"{name}: can't be written"):
        figures.write_samples(torch.rand(4, 2), spec(2), tmp_path / name)


def test_a_scatter_shows_both_clouds(tmp_path):
    left, right = torch.randn(50, 3) - 30, torch.randn(50, 3) + 30
    for name, samples in (("both.png", right), ("one.png", left)):
        figures.scatter(left, samples, tmp_path / "new" / name)
    both, one = (np.asarray(Image.open(tmp_path / "new" / name).convert("RGB")) for name in ("both.png", "one.png"))
    assert both.std() > 0
    assert not np.array_equal(both, one)


def test_a_slow_machine_draws_without_a_warning(monkeypatch, tmp_path):
    clock = SimpleNamespace(perf_counter=itertools.count(step=2).__next__)
    monkeypatch.setattr("matplotlib.legend.time", clock)
    figures.histogram({"own": np.arange(9.0)}, "score", tmp_path / "h.png")
    assert clock.perf_counter() > 2, "the legend's search for a place was timed"


def test_histograms_are_densities_on_one_axis_and_lose_no_row(tmp_path):
    axes, random = Figure().add_subplot(), np.random.default_rng(0)
    far = np.r_[random.normal(5, 1, 995), np.full(2, np.inf), np.full(2, -np.inf), np.nan]
    figures.draw_histogram(axes, {"own": random.normal(0, 1, 400), "other": far}, "score")
    own, other = axes.containers
    assert [bar.get_x() for bar in own] == [bar.get_x() for bar in other]
    for bars in (own, other):
        assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)
    assert other[0].get_height() * other[0].get_width() == pytest.approx(0.003)
    assert axes.get_ylabel() == "density"
    figures.histogram({"own": np.zeros(3), "other": np.full(2, np.nan)}, "score", tmp_path / "new" / "h.png")
    assert (tmp_path / "new" / "h.png").stat().st_size > 1000
