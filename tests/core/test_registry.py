"""The lookup tables: what is known, what is not, and what plug-ins add."""

from importlib.metadata import EntryPoint

import pytest

from twostep.core import registry
from twostep.core.registry import Registry
from twostep.core.schema import UserError


@pytest.fixture
def table():
    table = Registry("model")
    table.register("ae")("the autoencoder")
    table.register("flow")("the flow")
    return table


def test_what_is_filed_is_found(table):
    assert table["ae"] == "the autoencoder"
    assert "ae" in table
    assert list(table) == ["ae", "flow"]


def test_the_decorator_gives_back_what_it_files():
    table = Registry("model")

    @table.register("mine")
    class Mine:
        pass

    assert table["mine"] is Mine


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("flwo", "flwo: no such model; did you mean flow?"),
        ("FLOW", "FLOW: no such model; did you mean flow?"),
        ("zzz", "zzz: no such model; known: ae, flow"),
    ],
)
def test_other_names_are_refused_in_one_line(table, name, says):
    assert name not in table
    with pytest.raises(UserError) as caught:
        table[name]
    assert str(caught.value) == says
    assert table["flow"], "what is asked for next is found all the same"


def test_a_name_is_filed_once(table):
    with pytest.raises(AssertionError, match="model ae is registered twice"):
        table.register("ae")("another")


@pytest.mark.parametrize("look", [lambda table: table["mine"], lambda table: "mine" in table, list])
def test_plug_ins_are_loaded_at_the_first_look_and_only_then(monkeypatch, look):
    table = Registry("dataset", "data_sets")
    loads = []

    class Plugin:
        def load(self):
            loads.append(table.register("mine")("theirs"))

    def entry_points(group):
        assert group == "twostep.data_sets"
        return [Plugin()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert loads == []
    look(table)
    assert "mine" in table
    assert loads == ["theirs"]


def test_a_plug_in_that_cannot_be_loaded_is_named_at_every_look(monkeypatch, caplog, table):
    plugin = EntryPoint("theirs", "no_such_module", "twostep.models")
    monkeypatch.setattr(registry, "entry_points", lambda group: [plugin])
    for _ in range(2):
        with pytest.raises(UserError, match=r"^theirs: its plug-in no_such_module can't be loaded .*ModuleNotFound"):
            table["theirs"]
        assert table["flow"], "the others are there"
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("model theirs: its plug-in")


def test_an_entry_point_of_another_package_adds_a_name(monkeypatch, tmp_path):
    (tmp_path / "their_model.py").write_text(
        "from twostep.core import registry\nregistry.UNDER_TEST.register('theirs')(1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    table = Registry("model")
    monkeypatch.setattr(registry, "UNDER_TEST", table, raising=False)
    plugin = EntryPoint("theirs", "their_model", "twostep.models")
    monkeypatch.setattr(registry, "entry_points", lambda group: [plugin] if group == "twostep.models" else [])
    assert table["theirs"] == 1
