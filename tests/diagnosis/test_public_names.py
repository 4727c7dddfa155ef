"""The public names of `twostep.diagnosis`, so that they change on purpose only."""

from twostep import diagnosis


def test_the_public_names_are_these():
    assert sorted(diagnosis.__all__) == ["Diagnosis", "Dimension", "Overfitting", "diagnose", "dimension_of"]
    assert all(hasattr(diagnosis, name) for name in diagnosis.__all__)
