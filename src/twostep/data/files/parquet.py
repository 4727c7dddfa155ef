"""`.parquet` files, as pyarrow opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twostep.core.schema import UserError, reason


def open_parquet(path: Path) -> Any:
    """Return a `pyarrow.parquet.ParquetFile`."""
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]  # here because few need it

    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # arrow's errors have no common base
        raise damaged(path, error) from error


def read_parquet(path: Path) -> Any:
    """Return the table in a file, a `pyarrow.Table`."""
    with open_parquet(path) as file:
        try:
            return file.read()
        except Exception as error:  # arrow's errors have no common base
            raise damaged(path, error) from error


def holds_structs(path: Path) -> bool:
    """Return whether a file is a `.parquet` file with a column of structs, such as encoded images."""
    if path.suffix.lower() != ".parquet":
        return False
    with open_parquet(path) as file:
        return any(str(kind).startswith("struct") for kind in file.schema_arrow.types)


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error of a damaged `.parquet` file."""
    return UserError(f"{path}: damaged or incomplete parquet file ({reason(error)})")
