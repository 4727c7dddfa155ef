"""The engine: on which device it is, and with how many threads."""

from types import SimpleNamespace

import pytest
import torch

from twostep.core.schema import UserError
from twostep.training.engine import Engine


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_a_device_without_double_precision_is_never_taken(no_gpu, monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert Engine().device == torch.device("cpu")


def test_a_device_that_is_not_there_is_refused_in_one_line(no_gpu):
    with pytest.raises(UserError, match=r"^device=cuda: "):
        Engine("cuda")


@pytest.mark.parametrize(("cores", "local_ranks", "threads"), [(8, 2, 4), (7, 3, 2), (2, 4, 1)])
def test_ranks_of_one_machine_share_its_cores(monkeypatch, cores, local_ranks, threads):
    set_to = []
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("torch.set_num_threads", set_to.append)
    monkeypatch.setattr("lightning_fabric.Fabric", lambda **settings: Launched(settings))
    for name, value in {"WORLD_SIZE": 2 * local_ranks, "LOCAL_WORLD_SIZE": local_ranks}.items():
        monkeypatch.setenv(name, str(value))
    engine = Engine("cpu")
    assert set_to == [threads]
    assert (engine._fabric.settings["devices"], engine._fabric.settings["num_nodes"]) == (local_ranks, 2)


@pytest.mark.parametrize(
    ("error", "on_the_others"), [(UserError("mine"), UserError), (ZeroDivisionError("by accident"), RuntimeError)]
)
def test_an_error_of_the_first_rank_is_one_of_all(error, on_the_others):
    shared = []

    def act():
        raise error

    def rank(number):
        def broadcast(value):
            if number == 0:
                shared.append(value)
            return shared[0]

        engine = Engine("cpu")
        engine.world_size, engine.is_main = 2, number == 0
        engine._fabric = SimpleNamespace(broadcast=broadcast)
        return engine

    with pytest.raises(type(error)) as caught:
        rank(0).on_first(act)
    assert caught.value is error
    with pytest.raises(on_the_others, match=str(error)):
        rank(1).on_first(act)


class Launched:
    """Stands for the ranks that are not started."""

    device, global_rank, world_size = torch.device("cpu"), 0, 2

    def __init__(self, settings):
        self.settings = settings

    def launch(self):
        pass


@pytest.mark.parametrize(("precision", "dtype"), [("32", torch.float32), ("bf16", torch.bfloat16)])
def test_losses_are_computed_in_the_precision_that_is_asked_for(precision, dtype):
    x = torch.ones(2, 2)
    with Engine("cpu", precision).autocast():
        assert (x @ x).dtype == dtype
