"""The page of a run: one file that holds results, images and curves, and trusts no text."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from twostep.analysis.report import content, write_report
from twostep.core.figures import save_png
from twostep.core.files import without_folders
from twostep.core.result import Result
from twostep.core.schema import DataSpec, UserError
from twostep.core.table import Column, TableSchema
from twostep.experiment import report_data
from twostep.models import MODELS
from twostep.runs.config import RunConfig, Settings, TwoStepRunConfig
from twostep.runs.directory import Run

SPEC = DataSpec(name="digits", shape=(1, 8, 8), size=1234, low=0, high=16, discrete=True)
HISTORY = {
    "gae": [{"losses": {"loss": 3.0}, "valid": {"loss": 4.0}}, {"losses": {"loss": 2.0}, "valid": {"loss": 3.5}}],
    "de": [{"losses": {"loss": 1.0}, "valid": {}}],
}


VOID = {"img", "meta", "col", "br", "path", "use", "image", "rect", "line", "hr"}


class Page(HTMLParser):
    """What a browser would see: tags, addresses that it would fetch, texts; tags must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.texts, self.open, self.alts, self.ids = [], [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "xlink:href", "data", "action"}]
        if tag == "img":
            self.alts.append(given.get("alt"))
        if tag == "svg":
            assert given.get("role") == "img"
            self.alts.append(given.get("aria-label"))
        if "id" in given:
            self.ids.append(given["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
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
    """Draw all figures."""


def page(run):
    path = write_report(run)
    assert path == run.path / "report.html"
    return Page(path.read_text())


def kept(n=6):
    """Return what a run of images keeps for its page."""
    random = np.random.default_rng(0)
    rows = {
        name: 16 * random.random((n, 1, 8, 8)) for name in ("samples", "nearest", "real", "rows", "reconstructions")
    }
    return {
        **rows,
        **{name: random.random(n) for name in ("sample_distances", "real_distances", "unexplained")},
        "shares": random.random(50),
        "latent": random.normal(size=(50, 2)),
        "latent_samples": random.normal(size=(20, 2)),
        "latent_variance": np.array([0.5, 0.25]),
        "labels": random.integers(0, 3, 50),
        "density_train": random.normal(size=25),
        "density_test": random.normal(size=25),
    }


def test_the_page_of_a_run_that_has_only_begun(run):
    shown = page(run)
    assert "vae + flow on digits" in shown.text
    assert "1,234 training images of 8x8 pixels" in shown.text
    assert "not tested yet" in shown.text
    assert "img" not in shown.tags
    assert "svg" not in shown.tags


def test_results_are_shown_with_error_reference_and_units_in_a_legend(run):
    pieces = "pca features 0123456789ab (scaled); delta method"
    results = {
        "gae": {"l2_reconstruction_error": Result(12345.678, "squared data units", 1797, 0.123456)},
        "de": {"loss": Result(float("nan"), "nats", 1)},
        "two_step": {
            "log_likelihood": Result(-3.25, "nats", 360, None, "exact", "volume", "2 points are left out"),
            "explained_variance": Result(0.875, "share of the variance", 360, 0.01),
            "fd": Result(2.5, "squared feature units", 360, note=pieces, reference=1.25),
        },
    }
    run.write_metrics("test", results, "weights")
    Run.open(run.path).add_evaluation(
        {"fd": Result(3.5, "squared feature units", 9, note=pieces)},
        "weights",
        {"part": "two_step", "seed": 3, "metric_kwargs": {"gen_samples": 9}, "ood": []},
    )
    text = page(run).text
    assert "l2_reconstruction_error, lower is better 12,346 ± 0.12" in text
    assert "variance explained" in text
    assert "87.5 % ± 1 %" in text
    assert "fd, lower is better 2.5 1.25" in text
    assert "nats; exact; volume" in text
    assert text.count("pca features 0123456789ab (scaled)") == 1, "each unit and note stands once, in the legend"
    assert "not a number" in text
    assert "not tested yet" not in text
    assert "evaluation 001, of the two-step model, seed 3" in text
    assert "held-out data: 1.25" in text, "the headline says what to compare with"


def test_everything_is_in_the_page_itself_and_described(run):
    run.write_history(HISTORY)
    report_data.write(run.path, kept())
    shown = page(run)
    assert {"samples", "reconstructions", "latent", "density", "diagnosis", "results", "training", "settings"} <= set(
        shown.ids
    )
    assert shown.tags.count("img") == 2 + 2 * 6 + 2 * 6
    assert shown.tags.count("svg") == 5
    assert all(shown.alts)
    assert all(re.match(r"data:image/png;base64,|#", address) for address in shown.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(shown.tags)
    text = (run.path / "report.html").read_text()
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert set(re.findall(r'(\S+)="https?://', text)) <= {"xmlns", "xmlns:xlink"}
    assert len(text) < 2_000_000


def test_links_to_the_legend_have_ends(run):
    run.write_metrics("test", {"gae": {"loss": Result(1.0, "nats", 5)}}, "weights")
    shown = page(run)
    links = [address[1:] for address in shown.addresses if address.startswith("#")]
    assert links
    assert set(links) <= set(shown.ids)


def test_a_page_reads_in_the_dark_on_a_phone_and_on_paper(run):
    page(run)
    text = (run.path / "report.html").read_text()
    for rule in ("prefers-color-scheme: dark", "@media print", "@media (max-width", 'name="viewport"'):
        assert rule in text


def test_columns_are_compared_by_name(tmp_path):
    columns = TableSchema(
        columns=(
            Column(name="<age>"),
            Column(name="city", kind="categorical", levels=("Oslo", "Rome")),
            Column(name="year", kind="integer", offset=1900),
            Column(name="shop", kind="categorical", levels=tuple(f"s{k}" for k in range(20))),
            Column(name="since", kind="date", offset=365),
        )
    )
    spec = DataSpec(name="people.csv", shape=(5,), size=90, low=0, high=9, columns=columns)
    model = MODELS["flow"].for_data(DataSpec(name="e", shape=(2,), size=9, low=0, high=1), "de")
    run = Run.create(Settings(RunConfig(dataset="people.csv", logdir_root=tmp_path), {"model": model}), spec)
    random = np.random.default_rng(0)
    shops, days = np.arange(40) % 19, random.integers(0, 99, 40)
    table = np.stack([random.normal(size=40), random.integers(0, 2, 40), np.arange(40) + 40, shops, days], 1)
    table[0, 0] = np.nan
    arrays = {
        "columns": np.arange(5),
        "column_distances": np.array([0.5, 0.1, 0.0, 0.0, 0.0]),
        "table_real": table,
        "table_samples": table + 0.1,
    }
    report_data.write(run.path, arrays)
    shown = page(run)
    assert "columns" in shown.ids
    assert shown.tags.count("svg") == 2
    assert any("<age>, city" in alt for alt in shown.alts)
    assert {"Oslo", "Rome", "11 others", "since (days since 1971-01-01)"} <= set(shown.texts)
    assert not {"other", "s19", "40", "60"} & set(shown.texts), "levels that no row has, or years without their offset"
    assert any(text.startswith("19") for text in shown.texts)


def test_images_of_runs_of_earlier_versions_are_shown(run):
    for name in ("samples", "reconstructions"):
        save_png(torch.rand(1, 8, 8), run.path / "samples" / f"{name}.png", 8)
    shown = page(run)
    embedded = [base64.b64decode(a.partition("base64,")[2]) for a in shown.addresses if a.startswith("data:image/png")]
    assert embedded == [(run.path / "samples" / f"{name}.png").read_bytes() for name in ("samples", "reconstructions")]


def test_curves_have_gaps_where_values_are_not_finite(run):
    values = (1.0, float("nan"), float("inf"), 2.0)
    run.write_history({"de": [{"losses": {"loss": value}, "valid": {}} for value in values]})
    assert page(run).tags.count("svg") == 1


def test_the_best_epoch_is_marked_and_epochs_are_whole_numbers(run):
    losses = (3.0, 1.0, 2.0)
    run.write_history({"de": [{"losses": {"loss": 1.0}, "valid": {"loss": value}} for value in losses]})
    shown = page(run)
    assert "best epoch: 2" in shown.text
    ticks = [text for text in shown.texts if re.fullmatch(r"\d+(\.\d+)?", text.strip())]
    assert {"1", "2", "3"} <= {tick.strip() for tick in ticks}


def test_keys_that_differ_from_the_defaults_and_the_command_are_shown(tmp_path, run):
    models = {**run.settings.models, "gae": run.settings.models["gae"].model_copy(update={"latent_dim": 3})}
    made = Run.create(replace(run.settings, models=models), SPEC, to=tmp_path / "mine")
    values = made.read_environment()
    values["command"] = ["twostep", "train", "--dataset", "/data/of/mine/rows.npy", "--gae-config", "names=['a', 'b']"]
    (made.path / "environment.json").write_text(json.dumps(values))
    text = page(made).text
    assert "gae latent_dim 3 20" in text
    assert "All keys have their defaults" in page(run).text
    assert """twostep train --dataset rows.npy --gae-config "names=['a', 'b']\"""" in text
    assert f"torch {torch.__version__.split('+')[0]}" in text


def test_no_folder_of_this_machine_is_on_the_page(tmp_path):
    place = str(tmp_path / "secret" / "rows.npy")
    spec = DataSpec(name=place, shape=(2,), size=50, low=0, high=1)
    keys = RunConfig(dataset=place, logdir_root=tmp_path, data_root=tmp_path / "sets", ood_dataset=place)
    run = Run.create(Settings(keys, {"model": MODELS["flow"].for_data(spec, "de")}), spec)
    run.write_metrics("test", {"model": {"loss": Result(1.0, "nats", 1, note=f"{place} against {place}")}}, "weights")
    text = page(run).text
    assert "rows.npy" in text
    assert "secret" not in (run.path / "report.html").read_text()
    assert str(tmp_path) not in (run.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/a/b/c.npy", "c.npy"),
        ("dataset=/a/b/c.npy", "dataset=c.npy"),
        ("~/a/c.npy and /d/e", "c.npy and e"),
        ("owner/name", "owner/name"),
        ("bits/dim, p-value <= 0.05", "bits/dim, p-value <= 0.05"),
        ("../data/x.csv", "../data/x.csv"),
    ],
)
def test_folders_are_left_out_of_texts(text, shown):
    assert without_folders({"key": [text]}) == {"key": [shown]}


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
    report_data.write(run.path, kept())
    shown = page(run)
    assert "script>.npy" in shown.text
    assert not {"b", "script", "i"} & set(shown.tags)
    assert "<i>nats</i>" in shown.text


def test_what_was_diagnosed_is_on_the_page(run):
    (run.path / "diagnosis").mkdir()
    finding = {"name": "injectivity", "text": "3 % of pairs", "advice": "Train longer.", "numbers": {}}
    (run.path / "diagnosis" / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    assert "injectivity : 3 % of pairs Check: Train longer." in page(run).text


def test_a_page_that_cannot_be_written_is_refused(run):
    (run.path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report\.html: can't be written \(Is a directory\)"):
        write_report(run)


def test_damaged_rows_are_refused_by_name(run):
    (run.path / report_data.NAME).write_bytes(b"PK no archive")
    with pytest.raises(UserError, match=r"report\.npz: damaged"):
        write_report(run)


def test_the_command_writes_the_page_anew_with_rows_of_the_data(twostep, two_step_run):
    (two_step_run / "report.html").unlink()
    (two_step_run / report_data.NAME).unlink()
    outcome = twostep("report", two_step_run)
    assert (outcome.status, outcome.out) == (0, f"report: {two_step_run / 'report.html'}\n")
    shown = Page((two_step_run / "report.html").read_text())
    assert "samples" in shown.ids
    arrays = report_data.read(two_step_run)
    assert arrays["samples"].shape == arrays["nearest"].shape
    gaps = np.square(arrays["samples"] - arrays["nearest"]).reshape(len(arrays["samples"]), -1).sum(1) ** 0.5
    assert arrays["sample_distances"] == pytest.approx(gaps, rel=1e-3)
    assert (np.diff(arrays["unexplained"]) >= 0).all()
    errors = np.square(arrays["rows"] - arrays["reconstructions"]).reshape(len(arrays["rows"]), -1).sum(1)
    assert errors / arrays["unexplained"] == pytest.approx((errors / arrays["unexplained"])[0], rel=1e-3)


def test_several_runs_are_compared_on_a_page(twostep, run, tmp_path):
    run.write_metrics("test", {"two_step": {"log_likelihood": Result(-3.25, "nats", 9)}}, "weights")
    run.write_history(HISTORY)
    report_data.write(run.path, kept())
    models = {**run.settings.models, "gae": run.settings.models["gae"].model_copy(update={"latent_dim": 3})}
    other = Run.create(replace(run.settings, models=models), SPEC, to=tmp_path / "other")
    path = tmp_path / "page.html"
    assert twostep("report", run.path, other.path, "--to", path).status == 0
    shown = Page(path.read_text())
    assert "gae latent_dim 20 3" in shown.text
    assert shown.tags.count("img") == 1
    assert "log_likelihood 1 -3.25" in shown.text
    assert "exists" in twostep("report", run.path, other.path, "--to", path).err
    assert "give the directory of a run" in twostep("report").err


@pytest.mark.parametrize(
    ("nearer", "verdict"), [(1.0, "no sign of copies"), (0.5, "no sign of copies"), (0.01, "are copies")]
)
def test_copies_are_told_from_samples_that_are_only_smooth(nearer, verdict):
    far, near = 1 + np.random.default_rng(0).random((2, 32))
    far[:3] /= 2.5  # rows of which there are others much alike
    arrays = {"real_distances": far, "sample_distances": nearer * near}
    assert verdict in content.distances(arrays)
    assert content.distances({**arrays, "real_distances": far[:1]}) == content.distances({}) == ""
