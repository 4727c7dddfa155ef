"""The house itself: no machine's paths in tracked files, short files that say what they are, a README that is true."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LONGEST = 400
# spelt in pieces, or this file would name them
MACHINE = re.compile(
    "|".join(("/wo" + "rk/", "/tm" + "p/", r"\.\./sha" + "red", "/ho" + "me/", "/ro" + "ot/", "/op" + "t/"))
)
HOSTS = re.compile(
    "|".join((r"py" + r"pi\.org", r"python" + r"hosted\.org", "index" + "-url", r"https?://(localhost|\d+\.\d+\.)"))
)


def tracked():
    """Return every tracked file that holds text."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    contents = {name: (ROOT / name).read_bytes() for name in names.split("\0") if (ROOT / name).is_file()}
    return {name: content.decode() for name, content in contents.items() if b"\0" not in content}


@pytest.mark.parametrize("pattern", [MACHINE, HOSTS], ids=["paths", "hosts"])
def test_no_tracked_file_names_a_machine(pattern):
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_every_source_file_is_short_says_what_it_is_and_prints_nothing(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    first = (ast.get_docstring(tree) or "").partition("\n")[0]
    assert len(first) > 10, "starts without a line that says what it does"
    assert len(text.splitlines()) <= LONGEST
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert not [node.lineno for node in calls if node.func.id == "print"], "messages go to the logger"
    stars = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
    assert not stars
    assert "pickle" not in {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }


def test_every_import_is_a_declared_dependency():
    """A package that only another one brings along is gone when that one drops it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [line for name in extras.keys() - {"dev", "docs"} for line in extras[name]]
    declared = {re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", line)[0]).lower() for line in lines}
    nodes = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    roots = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"twostep"}
    by_module = packages_distributions()
    missing = {
        root
        for root in roots
        if not declared & {re.sub(r"[-_.]+", "-", name).lower() for name in by_module.get(root, [root])}
    }
    assert roots > {"torch", "numpy"}
    assert not missing
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert declared <= {re.sub(r"[-_.]+", "-", name) for name in pinned}


def commands_of_the_readme():
    """Return the commands in README.md, as lists of words: `twostep ...`, `main.py ...`, `single_main.py ...`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^\s*(?:\$ )?((?:twostep|\./main\.py|\./single_main\.py) .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_the_readme_names_only_commands_and_flags_that_exist(twostep):
    known = {}
    commands = commands_of_the_readme()
    assert commands
    for program, *words in commands:
        name = {"./main.py": "train", "./single_main.py": "train-single"}.get(program) or words[0]
        if name not in known and not name.startswith("-"):
            outcome = twostep(name, "--help")
            assert outcome.status == 0, f"{program} {name}: {outcome.err}"
            known[name] = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", outcome.out))
        flags = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert flags <= known.get(name, {"--version", "--help"}), f"{program} {' '.join(words)}"
