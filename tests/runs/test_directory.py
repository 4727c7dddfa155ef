"""Run directories: names that never collide, files that come back, damage that is seen, curves without doubles."""

import errno
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.experiments import asked, make_older
from twostep.core import files
from twostep.core.checkpoint import CheckpointError, State
from twostep.core.schema import DataSpec, UserError
from twostep.experiment.prepare import start
from twostep.metrics import Result
from twostep.models import MODELS
from twostep.models.two_step import latent_spec
from twostep.runs import directory as runs
from twostep.runs import environment
from twostep.runs.config import RunConfig, Settings, TwoStepRunConfig
from twostep.runs.directory import Run

SPEC = DataSpec(name="toy", shape=(1, 4, 4), size=50, low=0, high=255, discrete=True)


def single(root, name="vae", is_gae=False):
    model = MODELS[name].for_data(SPEC, "gae" if is_gae else "de", lr=0.25)
    return Settings(RunConfig(dataset="toy", logdir_root=root, seed=7), {"model": model}, is_gae)


def both(root):
    models = {"gae": MODELS["ae"].for_data(SPEC, "gae"), "de": MODELS["flow"].for_data(latent_spec(SPEC, 20), "de")}
    return Settings(TwoStepRunConfig(dataset="toy", logdir_root=root, pretrained_gae=root / "other"), models)


@pytest.fixture
def run(tmp_path):
    return Run.create(single(tmp_path), SPEC)


# ---- names


def test_runs_of_one_second_get_directories_of_their_own(tmp_path, monkeypatch):
    class Clock(runs.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 4, 26, 9, 38, 37)

    monkeypatch.setattr(runs, "datetime", Clock)
    names = [Run.create(single(tmp_path), SPEC).path.name for _ in range(3)]
    assert names == ["Apr26_09-38-37", "Apr26_09-38-37_1", "Apr26_09-38-37_2"]


MAKER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_directory import SPEC, Run, single
sys.stdin.readline()
for _ in range(20):
    print(Run.create(single(Path(sys.argv[1])), SPEC).path)
"""


def test_threads_at_once_get_directories_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "environment", lambda *_: {})
    with ThreadPoolExecutor(4) as threads:
        paths = list(threads.map(lambda _: Run.create(single(tmp_path / "runs"), SPEC).path, range(40)))
    assert len(set(paths)) == 40
    assert all((path / "data.json").is_file() for path in paths)


@pytest.mark.cmd
def test_processes_at_once_get_directories_of_their_own(tmp_path):
    paths = (Path(__file__).parent, Path(__file__).parents[1])
    command = [sys.executable, "-c", MAKER, str(tmp_path / "runs"), *map(str, paths)]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = [path for maker in makers for path in maker.communicate("\n")[0].split()]
    assert len(paths) == len(set(paths)) == 40
    assert all((Path(path) / "data.json").is_file() for path in paths)


@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.write_text", "pathlib.Path.rename"])
def test_a_run_that_is_stopped_while_it_is_made_is_not_there(tmp_path, monkeypatch, place):
    def stop(*_, **__):
        assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, stop)
        with pytest.raises(KeyboardInterrupt):
            Run.create(single(tmp_path), SPEC)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_leaves_of_a_run_that_was_being_made_hinders_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if the process had died before
    monkeypatch.setattr("pathlib.Path.rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Run.create(single(tmp_path), SPEC)
    monkeypatch.undo()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    made = Run.create(single(tmp_path), SPEC).path
    assert sorted(path for path in tmp_path.iterdir() if not path.name.startswith(".")) == [made]


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_root_that_cannot_be_is_one_line(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        Run.create(single(tmp_path / name), SPEC)
    assert str(caught.value).startswith(f"logdir_root={tmp_path / name}: can't make a run directory there (")


def test_an_unwritable_root_is_one_line(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError) as caught:
        Run.create(single(tmp_path), SPEC)
    assert str(caught.value) == f"logdir_root={tmp_path}: can't make a run directory there (Permission denied)"


# ---- configs and environment


@pytest.mark.parametrize(
    ("make", "files"),
    [
        (single, {"config.json"}),
        (lambda root: single(root, "ae", is_gae=True), {"gae_config.json"}),
        (both, {"gae_config.json", "de_config.json", "shared_config.json"}),
    ],
    ids=["single", "autoencoder", "two steps"],
)
def test_a_run_opens_as_what_it_was_created(tmp_path, make, files):
    settings = make(tmp_path)
    path = Run.create(settings, SPEC).path
    opened = Run.open(path)
    assert (opened.settings, opened.spec, opened.path) == (settings, SPEC, path)
    assert opened.settings.is_gae == settings.is_gae
    assert {file.name for file in path.glob("*config.json")} == files
    stored = {name: json.loads((path / name).read_text()) for name in files}
    assert Settings.from_files(stored) == settings == Settings.from_files(settings.files())


def test_embeddings_without_range_come_back(tmp_path):
    spec = latent_spec(SPEC, 3)
    settings = Settings(RunConfig(dataset="toy", logdir_root=tmp_path), {"model": MODELS["flow"].for_data(spec, "de")})
    assert Run.open(Run.create(settings, spec).path).spec == spec


def test_the_environment_says_how_to_repeat_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/main.py", "--dataset", "toy"])
    found = Run.open(Run.create(single(tmp_path), SPEC, ranks=2).path).read_environment()
    assert found["command"] == ["main.py", "--dataset", "toy"]
    assert (found["seed"], found["ranks"], found["threads"]) == (7, 2, torch.get_num_threads())
    assert found["versions"]["torch"] == version("torch")
    assert found["versions"].keys() == set(environment.LIBRARIES)
    assert environment.datetime.fromisoformat(found["started"]).tzinfo is not None
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert isinstance(found["uncommitted_changes"], bool)


def test_without_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert Run.create(single(tmp_path), SPEC).read_environment()["commit"] is None


def test_the_commit_of_a_repository_that_only_surrounds_the_code_is_not_noted(tmp_path, monkeypatch):
    """An installed package lies in an environment, which may lie in anybody's repository."""
    installed = tmp_path / ".venv" / "environment.py"
    installed.parent.mkdir()
    installed.write_text(Path(environment.__file__).read_text())
    git = ("git", "-c", "user.name=n", "-c", "user.email=e", "-C", tmp_path)
    for command in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "theirs")):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(environment, "__file__", str(installed))
    found = environment.environment(seed=0, ranks=1)
    assert (found["commit"], found["uncommitted_changes"]) == (None, False)
    subprocess.run([*git, "add", "-f", installed], check=True)
    assert len(environment.environment(seed=0, ranks=1)["commit"]) == 40


def test_each_command_that_resumes_a_run_is_noted(run, monkeypatch):
    first = run.read_environment()
    for word in ("--only-test", "--max-epochs-loaded"):
        monkeypatch.setattr(sys, "argv", ["/somewhere/main.py", word])
        run.record(ranks=3)
    found = run.read_environment()
    assert [session["command"] for session in found["later"]] == [
        ["main.py", "--only-test"],
        ["main.py", "--max-epochs-loaded"],
    ]
    assert {session["ranks"] for session in found.pop("later")} == {3}
    assert found == first


def test_limits_are_kept_in_the_configs_and_overrides_are_not(tmp_path):
    path = Run.create(both(tmp_path), SPEC).path
    stored = Run.open(path).settings
    adjusted = stored.adjusted({"de": {"test_metrics": ("loss",)}}, is_image=True)
    Run(path, adjusted, SPEC).keep_limits({"de": 7})
    found = Run.open(path).settings
    assert found.models["de"].max_epochs == 7
    assert found.models["de"].model_copy(update={"max_epochs": 100}) == stored.models["de"]
    assert (found.run, found.models["gae"]) == (stored.run, stored.models["gae"])


# ---- one writer


CLAIMANT = """
import sys, time
from pathlib import Path
from twostep.runs.directory import Run
run = Run.open(Path(sys.argv[1]))
run.claim()
print("claimed", flush=True)
time.sleep(60)
"""


def test_one_writes_at_a_time(run):
    run.claim()
    again = Run.open(run.path)
    with pytest.raises(UserError):
        again.claim()
    run.close()
    again.claim()
    again.close()


@pytest.mark.cmd
def test_the_claim_of_a_process_dies_with_it(run):
    other = subprocess.Popen([sys.executable, "-c", CLAIMANT, str(run.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(UserError) as caught:
            run.claim()
        assert str(caught.value) == f"{run.path}: another process writes into it; wait until it ends, or stop it"
        assert Run.open(run.path).settings == run.settings, "reading needs no claim"
        vanished = run.path / ".latest.tmp"
        vanished.symlink_to(run.path / "gone")  # like a file that the other has just renamed
        with pytest.raises(UserError) as caught:
            run.claim()
        vanished.unlink()
        assert str(caught.value).endswith("another process writes into it; wait until it ends, or stop it")
    finally:
        other.kill()
        other.communicate()
    run.claim()
    run.close()


def test_what_a_killed_process_left_half_written_is_removed(run):
    folder = run.path / ".12ab.tmp"
    folder.mkdir()
    left = [folder / "scores.json", run.path / ".34cd.tmp", run.path / "checkpoints" / ".latest.safetensors.123.tmp"]
    for path in left:
        path.write_text("{")
    kept = run.path / "notes.tmp"
    kept.write_text("mine")
    run.claim()
    run.close()
    assert not [path for path in (folder, *left) if path.exists()]
    assert kept.exists()


@pytest.mark.parametrize("name", [".", "checkpoints", "environment.json"])
def test_what_cannot_be_written_is_refused_before_anything_is(run, monkeypatch, name):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != run.path / name and access(path, mode))
    with pytest.raises(UserError) as caught:
        run.claim()
    line = f"{run.path / name}: can't be written, and this command writes into the run's directory; use a copy"
    assert str(caught.value) == line


def test_json_that_cannot_be_written_is_one_line(run, monkeypatch):
    def refuse(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(UserError, match=r"environment\.json: can't be written \(No space left on device\)"):
        run.record(1)


def test_json_that_is_not_written_whole_leaves_the_old_file_and_nothing_beside_it(run, monkeypatch):
    before, files = run.read_environment(), sorted(run.path.iterdir())

    def refuse(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UserError, match=r"No space left on device"):
        run.record(1)
    assert (run.read_environment(), sorted(run.path.iterdir())) == (before, files)


# ---- what is no run, or no longer one


def refusal(path):
    with pytest.raises(UserError) as caught:
        Run.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_run_is_refused(tmp_path, run):
    assert refusal(tmp_path / "none").startswith(f"{tmp_path / 'none'}: no such directory")
    assert refusal(run.path / "config.json").startswith(f"{run.path / 'config.json'}: no such directory")
    assert refusal(tmp_path) == f"{tmp_path}: not the directory of a run: its config files are not there"


@pytest.mark.parametrize(
    ("lost", "left"),
    [
        ("gae_config.json", "de_config.json, shared_config.json"),
        ("de_config.json", "gae_config.json, shared_config.json"),
        ("shared_config.json", "gae_config.json, de_config.json"),
    ],
)
def test_a_run_without_one_of_its_configs_is_refused_by_what_it_has(tmp_path, lost, left):
    path = Run.create(both(tmp_path), SPEC).path
    (path / lost).unlink()
    assert refusal(path).endswith(f"of its config files it has only {left}")


def test_a_run_without_the_facts_of_its_data_is_refused_by_that(run):
    (run.path / "data.json").unlink()
    assert refusal(run.path) == f"{run.path / 'data.json'}: can't be read (No such file or directory)"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\0", '{"name": "vae"', '{"name": 3}', "{}"])
@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_damaged_json_is_one_line_that_names_the_file(run, name, text):
    (run.path / name).write_text(text)
    assert name in refusal(run.path)


def test_bytes_that_are_no_text_are_one_line(run):
    (run.path / "config.json").write_bytes(b"\xff\xfe\x80")
    assert "config.json: damaged or incomplete JSON file" in refusal(run.path)


def test_keys_of_another_version_are_named(run):
    values = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**values, "from_the_future": 1}))
    assert "from_the_future: no such key of vae" in refusal(run.path)


@pytest.mark.parametrize(
    ("name", "read", "text", "says"),
    [
        ("metrics/test.json", "read_metrics", '{"de": {"loss": {"value": "x", "unit": "", "n": 3}}}', "de.loss.value"),
        ("metrics/test.json", "read_metrics", '{"de": {"loss": {"value": 1}}}', "de.loss.unit"),
        ("metrics/test.json", "read_metrics", '{"de": {"loss": 3}}', "de.loss"),
        ("metrics/test.json", "read_metrics", '{"de": [1]}', "de"),
        ("metrics/history.json", "read_history", '{"de": 3}', "de"),
        ("metrics/history.json", "read_history", '{"de": [{"losses": {"loss": []}}]}', "de.0.losses.loss"),
        ("environment.json", "read_environment", '{"command": 3}', "command"),
        ("environment.json", "read_environment", '{"versions": []}', "versions"),
        ("environment.json", "read_environment", '{"later": 3}', "later"),
        ("environment.json", "read_environment", "[" * 100_000, "nested"),
    ],
)
def test_values_of_another_type_are_named(run, name, read, text, says):
    (run.path / "metrics").mkdir(exist_ok=True)
    (run.path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        getattr(run, read)(*(["test"] if read == "read_metrics" else []))
    assert str(caught.value).startswith(f"{run.path / name}: ")
    assert f" {says}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_digest_that_is_no_text_is_named(run):
    values = json.loads((run.path / "data.json").read_text())
    (run.path / "data.json").write_text(json.dumps({**values, "sha256": 3}))
    assert "data.json: " in refusal(run.path)


def test_a_file_of_any_size_is_not_read(run, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_JSON", 10)
    assert "config.json: has " in refusal(run.path)


def test_results_of_a_later_version_are_read(run):
    (run.path / "metrics").mkdir()
    result = {"value": "nan", "unit": "nats", "n": 3, "interval": ["-inf", 2], "from_the_future": 1}
    (run.path / "metrics" / "test.json").write_text(json.dumps({"weights": "w", "de": {"loss": result}}))
    found = run.read_metrics("test")["de"]["loss"]
    assert math.isnan(found.value)
    assert found.interval == (-math.inf, 2)


@pytest.mark.parametrize(
    "name",
    [
        *("report.html", "stdout", "lock", "config.json", "data.json", "environment.json", "dimension.json"),
        *("checkpoints/latest.safetensors", "metrics/test.json", "samples/samples.png", "ood/scores.json"),
        *("metrics", "samples", "ood", "events.out.tfevents.1"),
    ],
)
def test_a_link_inside_a_run_is_refused_and_what_it_leads_to_stays(run, tmp_path, name):
    outside, link = tmp_path / "outside", run.path / name
    outside.write_text("mine")
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    assert refusal(run.path).startswith(f"{link}: is a symbolic link")
    with pytest.raises(UserError, match="is a symbolic link"):
        run.claim()
    run.close()
    if name != "lock":
        assert outside.read_text() == "mine"


def test_a_run_may_be_reached_by_a_link(run, tmp_path):
    (tmp_path / "link").symlink_to(run.path, target_is_directory=True)
    assert Run.open(tmp_path / "link").settings == run.settings


# ---- checkpoints


def put_both(run):
    run.save("latest", State({"w": torch.tensor(2.0)}, {"epoch": 2}))
    run.save("best_valid", State({"w": torch.tensor(1.0)}, {"epoch": 1}))


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[:-3])
    elif how == "flipped":
        content[-1] ^= 4
        path.write_bytes(content)
    else:
        path.unlink()


def test_the_first_whole_checkpoint_is_loaded(run, caplog):
    assert not run.has_checkpoint()
    put_both(run)
    assert run.has_checkpoint()
    assert run.load().values == {"epoch": 2}
    assert run.load(best_first=True).values == {"epoch": 1}
    assert caplog.text == ""
    assert sorted(file.name for file in (run.path / "checkpoints").iterdir()) == [
        "best_valid.safetensors",
        "latest.safetensors",
    ]


@pytest.mark.parametrize("how", ["truncated", "flipped", "lost"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(run, caplog, how):
    put_both(run)
    latest = run.path / "checkpoints" / "latest.safetensors"
    damage(latest, how)
    assert run.load().values == {"epoch": 1}
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith(f"{latest}: ")
    assert record.message.endswith("; taking best_valid.safetensors instead")


@pytest.mark.parametrize("how", ["truncated", "flipped", "lost"])
def test_without_a_whole_checkpoint_one_line_names_both(run, how):
    put_both(run)
    for tag in ("latest", "best_valid"):
        damage(run.path / "checkpoints" / f"{tag}.safetensors", how)
    with pytest.raises(CheckpointError) as caught:
        run.load()
    message = str(caught.value)
    assert "\n" not in message
    assert "latest.safetensors: " in message
    assert "best_valid.safetensors: " in message
    assert message.endswith("start a new run without --load-dir")


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_leaves_the_last(run, monkeypatch):
    put_both(run)
    files = {file: file.read_bytes() for file in (run.path / "checkpoints").iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"latest\.safetensors: can't be written \(No space left on device"):
        run.save("latest", State({"w": torch.zeros(1)}))
    assert {file: file.read_bytes() for file in (run.path / "checkpoints").iterdir()} == files


# ---- results


def evaluated(run, number, scores=False):
    """Add an evaluation whose results and scores hold a number; return its path."""

    def write(folder):
        (folder / "scores.json").write_text(str(number))

    return run.add_evaluation({"loss": Result(number, "nats", 5)}, "weights", {}, write if scores else None)


def test_evaluations_at_once_get_a_number_each_with_their_own_scores(run):
    with ThreadPoolExecutor(8) as threads:
        paths = list(threads.map(lambda number: evaluated(run, number, number % 2), range(40)))
    assert sorted(path.stem for path in paths) == [f"evaluation-{number:03d}" for number in range(1, 41)]
    for number, path in enumerate(paths):
        assert json.loads(path.read_text())["results"]["loss"]["value"] == number
        scores = run.path / "ood" / path.stem / "scores.json"
        assert (scores.read_text() if scores.exists() else None) == (str(number) if number % 2 else None)
    assert not list(run.path.rglob(".*"))


def test_evaluations_are_numbered_beyond_999_and_beside_names_of_others(run):
    (run.path / "metrics").mkdir()
    for name in ("evaluation-999.json", "evaluation-old.json", "evaluation-.json", "evaluation-²³.json"):
        (run.path / "metrics" / name).write_text("{}")
    assert [evaluated(run, number).stem for number in range(3)] == [f"evaluation-{n}" for n in (1000, 1001, 1002)]
    (run.path / "ood" / "evaluation-1005").mkdir(parents=True)
    assert evaluated(run, 3, scores=True).stem == "evaluation-1006"


def test_an_evaluation_that_breaks_off_leaves_nothing(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for place in ("pathlib.Path.write_text", "os.fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            with pytest.raises(UserError, match="can't be written"):
                evaluated(run, 1, scores=True)
        assert not list(run.path.rglob("*evaluation*"))
        assert not list(run.path.rglob(".*"))


def test_metrics_come_back_as_they_were(run):
    results = {
        "gae": {"loss": Result(1 / 3, "nats", 5, None), "l2_reconstruction_error": Result(2.5, "u", 5, 0.1)},
        "de": {"log_likelihood": Result(-1e300, "nats", 5, 0.1, "bound", "Lebesgue on R^2", "3 left out")},
    }
    path = run.write_metrics("test", results, "weights")
    assert path == run.path / "metrics" / "test.json"
    assert run.read_metrics("test") == results
    assert Run.open(run.path).read_metrics("test") == results
    assert run.read_metrics("other") == {}
    assert json.loads(path.read_text())["de"]["log_likelihood"]["kind"] == "bound"


def test_results_of_the_same_weights_are_kept_and_those_of_others_dropped(run):
    one, other = Result(1.0, "nats", 5), Result(2.0, "nats", 5)
    run.write_metrics("test", {"gae": {"loss": one, "l2_reconstruction_error": one}, "de": {"loss": one}}, "weights")
    run.write_metrics("test", {"gae": {"loss": other}, "de": {}}, "weights")
    assert run.read_metrics("test") == {"gae": {"loss": other, "l2_reconstruction_error": one}, "de": {"loss": one}}
    run.write_metrics("test", {"gae": {"loss": one}, "de": {}}, "other weights")
    assert run.read_metrics("test") == {"gae": {"loss": one}, "de": {}}


def test_numbers_that_are_not_finite_are_valid_json_and_come_back(run):
    numbers = (math.nan, math.inf, -math.inf)
    results = {"de": {f"metric{i}": Result(number, "nats", 5, number) for i, number in enumerate(numbers)}}
    run.write_metrics("test", results, "weights")
    run.write_history({"de": [{"losses": {"loss": number}, "valid": {}} for number in numbers]})
    for name in ("test", "history"):
        json.loads((run.path / "metrics" / f"{name}.json").read_text(), parse_constant=pytest.fail)
    for result, number in zip(run.read_metrics("test")["de"].values(), numbers, strict=True):
        assert repr((result.value, result.standard_error)) == repr((number, number))
    assert [repr(epoch["losses"]["loss"]) for epoch in run.read_history()["de"]] == ["nan", "inf", "-inf"]


def test_the_history_comes_back(run):
    history = {"model": [{"losses": {"loss": 0.1}, "valid": {}}, {"losses": {"loss": 0.05}, "valid": {"loss": 1.5}}]}
    assert run.read_history() == {}
    run.write_history(history)
    assert run.read_history() == history


def test_damaged_results_are_one_line(run):
    run.write_history({})
    (run.path / "metrics" / "history.json").write_text("{")
    with pytest.raises(UserError, match=r"history\.json: damaged or incomplete JSON file"):
        run.read_history()


def test_nothing_is_left_beside_the_files(run):
    put_both(run)
    run.write_metrics("test", {}, "weights")
    run.write_history({})
    assert not [file for file in run.path.rglob("*") if file.name.startswith(".") or "tmp" in file.name]


# ---- curves


def curves(path):
    accumulator = EventAccumulator(str(path), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def steps(path, name):
    return [event.step for event in curves(path).Scalars(name)]


def session(path, settings, first, last):
    run = Run(path, settings, SPEC)
    for step in range(first, last + 1):
        with run.curves(step) as writer:
            writer.add_scalar("model/train/loss", float(step), step)
    run.close()


def test_a_later_session_replaces_what_it_repeats(run):
    session(run.path, run.settings, 1, 6)
    make_older(run.path)
    session(run.path, run.settings, 4, 9)
    assert steps(run.path, "model/train/loss") == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_session_that_only_draws_takes_nothing_away(run):
    session(run.path, run.settings, 1, 6)
    for step in (6, 3):
        make_older(run.path)
        later = Run(run.path, run.settings, SPEC)
        with later.curves() as writer:
            writer.add_image("samples", torch.rand(1, 8, 8), step)
        later.close()
    assert steps(run.path, "model/train/loss") == [1, 2, 3, 4, 5, 6]
    assert len(curves(run.path).Images("samples")) == 2


def test_curves_carry_the_configs_as_text(run):
    session(run.path, run.settings, 1, 2)
    (event,) = curves(run.path).Tensors("config.json/text_summary")
    (text,) = event.tensor_proto.string_val
    shown = json.loads(text.decode())
    assert shown == run.settings.files()["config.json"]


@pytest.mark.parametrize("going_on_at", [2, 5])
def test_later_sessions_add_no_second_text(run, going_on_at):
    session(run.path, run.settings, 2, 6)
    make_older(run.path)
    session(run.path, run.settings, going_on_at, 9)
    assert len(curves(run.path).Tensors("config.json/text_summary")) == 1


def test_a_run_that_logs_nothing_has_no_curves(run):
    run.close()
    assert not list(run.path.glob("events*"))


def test_two_creations_share_nothing(tmp_path):
    first, second = Run.create(single(tmp_path), SPEC), Run.create(single(tmp_path), SPEC)
    put_both(first)
    assert not second.has_checkpoint()
    assert not list((second.path / "checkpoints").iterdir())


def test_configs_of_a_request_are_those_on_disk(tmp_path, own_images):
    experiment = start(asked(("vae", "flow"), own_images, tmp_path))
    assert Run.open(experiment.run.path).settings == experiment.settings
