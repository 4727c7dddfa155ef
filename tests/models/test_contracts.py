"""Every model in the registry keeps every promise of its roles."""

import pytest

from helpers.contracts import CASES, CHECKS
from twostep.models import MODELS


@pytest.mark.parametrize(("check", "case"), CHECKS, ids=lambda part: getattr(part, "__name__", str(part)))
def test_contract(check, case):
    check(case)


def test_no_model_and_no_role_is_left_out():
    assert {(case.name, case.role) for case in CASES} == {
        (name, role) for name in MODELS for role in MODELS[name].roles
    }
