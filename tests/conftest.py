"""Settings of all tests: one thread a worker, a cache of their own, no network."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

pytest.register_assert_rewrite("contracts")


def pytest_configure(config):
    # torch warns of itself when forward-mode differentiation is first used.
    config.addinivalue_line("filterwarnings", "ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TWOSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
