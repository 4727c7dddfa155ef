"""The page of a run: one file that holds results, images and curves, and trusts no text."""

import base64
import re
from html.parser import HTMLParser

import pytest
import torch

from twostep.analysis.report import write_report
from twostep.core.figures import save_png
from twostep.core.schema import DataSpec, UserError
from twostep.metrics import Result
from twostep.models import MODELS
from twostep.runs.config import RunConfig, Settings, TwoStepRunConfig
from twostep.runs.directory import Run

SPEC = DataSpec(name="digits", shape=(1, 8, 8), size=1234, low=0, high=16, discrete=True)
HISTORY = {
    "gae": [{"losses": {"loss": 3.0}, "valid": {"loss": 4.0}}, {"losses": {"loss": 2.0}, "valid": {"loss": 3.5}}],
    "de": [{"losses": {"loss": 1.0}, "valid": {}}],
}


class Page(HTMLParser):
    """What a browser would see: tags, addresses that it would fetch, texts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.texts, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "xlink:href", "data", "action"}]

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def run(tmp_path):
    models = {
        "gae": MODELS["vae"].for_data(SPEC, "gae"),
        "de": MODELS["flow"].for_data(DataSpec(name="e", shape=(20,), size=9, low=0, high=1), "de"),
    }
    return Run.create(Settings(TwoStepRunConfig(dataset="digits", logdir_root=tmp_path), models), SPEC)


@pytest.fixture(autouse=True)
def _no_curves():
    """Draw them all."""


def page(run):
    path = write_report(run)
    assert path == run.path / "report.html"
    return Page(path.read_text())


def test_the_page_of_a_run_that_has_only_begun(run):
    shown = page(run)
    assert "vae + flow on digits" in shown.text
    assert "1,234 training points of shape 1x8x8" in shown.text
    assert "not tested yet" in shown.text
    assert "img" not in shown.tags
    assert "svg" not in shown.tags


def test_results_are_shown_with_error_unit_kind_and_note(run):
    results = {
        "gae": {"l2_reconstruction_error": Result(12.345678, "squared data units", 1797, 0.123456)},
        "two_step": {"log_likelihood": Result(-3.25, "nats", 360, None, "exact", "volume", "2 points are left out")},
        "de": {"loss": Result(float("nan"), "nats", 1)},
    }
    run.write_metrics("test", results, "weights")
    text = page(run).text
    assert "gae l2_reconstruction_error 12.3457 ± 0.12 squared data units 1,797" in text
    assert "two_step log_likelihood -3.25 nats exact; volume; 2 points are left out 360" in text
    assert "de loss not a number nats 1" in text
    assert "not tested yet" not in text


def test_images_and_curves_are_in_the_page_itself(run):
    for name in ("samples", "reconstructions"):
        save_png(torch.rand(1, 8, 8), run.path / "samples" / f"{name}.png", 8)
    run.write_history(HISTORY)
    shown = page(run)
    assert shown.tags.count("img") == 2
    assert shown.tags.count("svg") == 2
    embedded = [base64.b64decode(a.partition("base64,")[2]) for a in shown.addresses if a.startswith("data:image/png")]
    assert embedded == [(run.path / "samples" / f"{name}.png").read_bytes() for name in ("samples", "reconstructions")]
    assert all(re.match(r"data:image/png;base64,|#", address) for address in shown.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(shown.tags)
    text = (run.path / "report.html").read_text()
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert set(re.findall(r'(\S+)="https?://', text)) <= {"xmlns", "xmlns:xlink"}


def test_curves_have_gaps_where_values_are_not_finite(run):
    values = (1.0, float("nan"), float("inf"), 2.0)
    run.write_history({"de": [{"losses": {"loss": value}, "valid": {}} for value in values]})
    assert page(run).tags.count("svg") == 1


def test_a_single_epoch_is_visible(run):
    run.write_history({"de": HISTORY["de"]})
    page(run)
    text = (run.path / "report.html").read_text()
    assert re.search(r'<g clip-path="[^"]*">\s*<use ', text), "a line of one point shows only by its marker"


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_epochs_are_whole_numbers(run, epochs):
    run.write_history({"de": HISTORY["de"] * epochs})
    page(run)
    text = (run.path / "report.html").read_text()
    axis = text[text.index('id="matplotlib.axis_1"') : text.index('id="matplotlib.axis_2"')]
    ticks = re.findall(r"<!-- (\S+) -->", axis)
    assert ticks
    assert all("." not in tick for tick in ticks if tick != "epoch"), ticks


def test_configs_and_the_machine_are_shown(run):
    text = page(run).text
    assert "gae_config.json" in text
    assert '"latent_dim": 20' in text
    assert '"hidden_units": 64' in text
    assert f"torch {torch.__version__.split('+')[0]}" in text
    assert "seed 0" in text


def test_the_configs_shown_are_those_of_the_files(run):
    changed = {"de": {"test_metrics": ("loss",)}}
    adjusted = Run(run.path, run.settings.adjusted(changed, is_image=True), SPEC)
    run.keep_limits({"gae": 4321})
    text = page(adjusted).text
    assert '"max_epochs": 4321' in text
    assert '"test_metrics": [ "log_likelihood", "loss" ]' in text


def test_names_from_outside_are_text(tmp_path):
    name = "<b>&\"'</b><script>alert(1)</script>.npy"
    spec = SPEC.model_copy(update={"name": name})
    settings = Settings(RunConfig(dataset=name, logdir_root=tmp_path), {"model": MODELS["vae"].for_data(SPEC, "de")})
    run = Run.create(settings, spec)
    run.write_metrics("test", {"model": {"loss": Result(1.0, "<i>nats</i>", 1, note="<img src=x>")}}, "weights")
    shown = page(run)
    assert f"vae on {name}" in shown.text
    assert not {"b", "script", "i", "img"} & set(shown.tags)
    assert "<i>nats</i>" in shown.text


def test_a_page_that_cannot_be_written_is_refused(run):
    (run.path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report\.html: can't be written \(Is a directory\)"):
        write_report(run)


def test_the_command_writes_the_page_anew(twostep, two_step_run):
    (two_step_run / "report.html").unlink()
    outcome = twostep("report", two_step_run)
    assert (outcome.status, outcome.out) == (0, f"report: {two_step_run / 'report.html'}\n")
    shown = Page((two_step_run / "report.html").read_text())
    assert shown.tags.count("img") == 2
    assert shown.tags.count("svg") == 2
    assert "two_step log_likelihood" in shown.text
