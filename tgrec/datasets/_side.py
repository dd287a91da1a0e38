"""Files of items and of users beside a file of interactions."""

from __future__ import annotations

import pandas as pd

from tgrec.datasets._clean import ITEM_COLUMNS, USER_COLUMNS, clean_items, clean_users
from tgrec.datasets._fetch import DataFileError
from tgrec.datasets._tables import FileName, read_file


def item_table(path: FileName, name: str) -> pd.DataFrame:
    """Ids, titles, genres and years of a file of items; nothing else in it is read.

    Columns are recognised by their names. A file without a header line holds ``item title`` or
    ``item title genres``.

    Args:
        path: The file, of any kind that :func:`tgrec.datasets.read_interactions` reads.
        name: What to call the column of ids.

    Returns:
        The column ``name`` as it stands, and as far as the file has them the columns that
        :func:`tgrec.datasets.clean_items` knows.

    Raises:
        DataFileError: If there is no column of ids.
    """
    table = read_file(path)
    if _headless(table):
        named = table.set_axis(["item", "title", "genres", *range(3, 99)][: table.shape[1]], axis=1)
        table = named if table.shape[1] <= 3 else named.drop(columns="genres")
    try:
        return clean_items(table, name).filter([name, *ITEM_COLUMNS])
    except ValueError as error:
        raise DataFileError(f"{path}: {error}") from error


def user_table(path: FileName, name: str) -> pd.DataFrame:
    """Ids, gender, age and occupation of a file of users; nothing else in it is read.

    A file without a header line and with five columns is taken for one of MovieLens, ``user gender
    age occupation zip`` or ``user age gender occupation zip``; of any other only the first column,
    the users, is read.

    Args:
        path: The file, of any kind that :func:`tgrec.datasets.read_interactions` reads.
        name: What to call the column of ids.

    Returns:
        The column ``name`` as it stands, and as far as the file has them the columns that
        :func:`tgrec.datasets.clean_users` knows.

    Raises:
        DataFileError: If there is no column of users.
    """
    table = read_file(path)
    if _headless(table):
        fields = ["user", *range(1, table.shape[1])]
        if len(fields) == 5:
            numbers = pd.to_numeric(table[1], errors="coerce").notna().all()
            fields[1:4] = ["age", "gender", "occupation"] if numbers else [
                "gender", "age", "occupation"]  # fmt: skip
        table = table.set_axis(fields, axis=1)
    try:
        return clean_users(table, name).filter([name, *USER_COLUMNS])
    except ValueError as error:
        raise DataFileError(f"{path}: {error}") from error


def _headless(table: pd.DataFrame) -> bool:
    return bool(table.columns.tolist() == list(range(table.shape[1])))
