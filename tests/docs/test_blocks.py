"""The code blocks of the README and the documentation run as they stand, on small datasets and for one epoch."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import blob
from twostep.models import MODELS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN_ONLY = {"yaml", "text", "bibtex", "toml"}
PROGRAMS = {"twostep": None, "./main.py": "train", "./single_main.py": "train-single"}
NOT_HERE = {"make", "python3", ".", "pip", "git"}  # they set up an environment; continuous integration runs them
QUICK_FLOW = {"num_layers": 1, "num_blocks_per_layer": 1, "hidden_units": 4, "max_epochs": 1}
SHORT = {"train": ("--shared-config", "max_epochs=1"), "train-single": ("--config", "max_epochs=1")}


def blocks(page, language):
    return [code for found, code in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def with_blocks(language):
    pages = [page for page in PAGES if blocks(page, language)]
    assert pages
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page):
    languages = {language for language, _ in FENCE.findall(page.read_text(encoding="utf-8"))}
    assert languages <= {"bash", "python", *SHOWN_ONLY}


@pytest.fixture
def files(sets, tmp_path, monkeypatch):
    """Work in a folder with the files that the pages name."""
    random = np.random.default_rng(0)
    images = np.stack([blob(random, (28, 28)) for _ in range(60)])
    np.save(tmp_path / "my_images.npy", images)
    np.save(tmp_path / "kmnist.npy", images)
    table = random.normal(size=(200, 8)).cumsum(1)
    np.savetxt(tmp_path / "my_table.csv", table, delimiter=",", header="a,b,c,d,e,f,g,h", comments="")
    from PIL import Image

    (tmp_path / "my_images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "my_images" / f"{number}.png")
    monkeypatch.setenv("TWOSTEP_DATA", str(sets))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands_in(block):
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def train(twostep, files):
    """Give a function that trains a small run on fake clothes and returns its directory."""

    def call(name, *flags):
        keys = {"train": "--shared-config", "train-single": "--config"}[name]
        outcome = twostep(name, "--dataset", "fashion-mnist", *flags, keys, "max_epochs=1", keys, "logdir_root=given")
        assert outcome.status == 0, outcome.err
        return max((files / "given").iterdir(), key=lambda path: path.stat().st_ctime_ns)

    return call


@pytest.mark.cmd
@with_blocks("bash")
def test_the_commands_of_a_page_run(page, twostep, files, train, monkeypatch):
    given = {}
    text = page.read_text(encoding="utf-8")
    if re.search(r"\bRUN\b", text):
        given["RUN"] = train("train", "--gae-model", "vae", "--de-model", "flow")
    if "GAE_RUN" in text:
        given["GAE_RUN"] = train("train-single", "--model", "vae", "--is-gae")
    for words in (
        words
        for block in blocks(page, "bash")
        for words in commands_in(block.replace("<avb run>", "AVB").replace("<avb + vae run>", "PAIR"))
    ):
        program, *arguments = words
        if program in NOT_HERE:
            continue
        if program == "export":
            for name, _, value in (word.partition("=") for word in arguments):
                if value != "DIR":
                    monkeypatch.setenv(name, value)
            continue
        command = [PROGRAMS[program], *arguments] if PROGRAMS[program] else arguments
        command = [str(given.get(word.removeprefix("runs/"), word)) for word in command]
        if (
            command[0] in SHORT
            and "max_epochs" not in str(command)
            and ("--load-dir" not in command or "--load-pretrained-gae" in command)
        ):
            command += SHORT[command[0]]
        if "flow" in command and command[0] == "train-single":
            command += ["--config", "hidden_units=4"]
        before = set(Path("runs").glob("*"))
        outcome = twostep(*command)
        assert outcome.status == 0, f"{shlex.join(words)}: {outcome.err}"
        for path in set(Path("runs").glob("*")) - before:
            given.setdefault("PAIR" if (path / "shared_config.json").exists() else "AVB", path)


@with_blocks("python")
def test_the_python_of_a_page_runs(page, files, monkeypatch):
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))  # a page may register one
    monkeypatch.setattr("twostep.estimators.base.QUICK", {"ae": {"max_epochs": 2}, "flow": QUICK_FLOW})
    namespace = {"__name__": "__main__"}
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), namespace)
