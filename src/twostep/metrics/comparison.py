"""Which of several results is best, if that can be said."""

from __future__ import annotations

from collections.abc import Mapping

from twostep.core.schema import UserError
from twostep.metrics.base import Result


def ranked(results: Mapping[str, Result], lower_is_better: bool) -> list[str]:
    """Return the names of results, the best first; those that are not a number come last.

    Raises:
        UserError: if two differ in unit, kind or measure: a bound and an exact density, say, are no rivals.
    """
    if not results:
        return []
    (first, reference), *others = results.items()
    for name, result in others:
        for aspect in ("unit", "kind", "measure"):
            one, other = getattr(reference, aspect), getattr(result, aspect)
            if one != other:
                raise UserError(
                    f"{first} and {name} can't be compared: the {aspect} is {one or 'not given'} of the one and "
                    f"{other or 'not given'} of the other"
                )
    sign = 1 if lower_is_better else -1
    return sorted(results, key=lambda name: (results[name].value != results[name].value, sign * results[name].value))
