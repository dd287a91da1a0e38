"""Tables of items and of users beside a file of interactions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tgrec.data.columns import where
from tgrec.data.recognise import NAMES, plain_name
from tgrec.datasets._fetch import DataFileError
from tgrec.datasets._read import year_of
from tgrec.datasets._tables import FileName, read_file

# What columns are usually called, as `plain_name` writes them.
_TITLE = NAMES["title"] | {"name"}
_GENRES = {"genres", "genre", "categories", "category"}
_YEAR = {"year", "releaseyear"}
_FEATURES = {"gender": {"gender", "sex"}, "age": {"age", "agegroup"},
             "occupation": {"occupation", "job", "profession"}}  # fmt: skip
# How files say that there is no genre.
_NO_GENRE = {"", "(no genres listed)", "n/a", "none", "unknown"}


def item_table(path: FileName, name: str) -> pd.DataFrame:
    """Ids, titles, genres and years of a file of items; nothing else in it is read.

    Columns are recognised by their names. A file without a header line holds ``item title`` or
    ``item title genres``.

    Args:
        path: The file, of any kind that :func:`tgrec.datasets.read_interactions` reads.
        name: What to call the column of ids.

    Returns:
        The column ``name`` as it stands, and as far as the file has them ``title`` (texts),
        ``genres`` (texts such as ``Action|Drama``) and ``year`` (int64; of the title, as in
        ``Heat (1995)``, if there is no column of years; 0 if unknown).

    Raises:
        DataFileError: If there is no column of ids.
    """
    table = read_file(path)
    if _headless(table):
        named = table.set_axis(["item", "title", "genres", *range(3, 99)][: table.shape[1]], axis=1)
        table = named if table.shape[1] <= 3 else named.drop(columns="genres")
    ids = _column(table, path, NAMES["item"] | {"id"})
    if ids is None:
        raise DataFileError(f"{path}: there is no column of items among {list(table.columns)}; "
                            f"call it item_id")  # fmt: skip
    out = pd.DataFrame({name: ids})
    title, genres = _column(table, path, _TITLE), _column(table, path, _GENRES)
    years = _column(table, path, _YEAR)
    if title is not None:
        out["title"] = title.fillna("").astype(str).str.strip()
    if genres is not None:
        out["genres"] = _genres(genres.fillna("").astype(str))
    if years is not None:
        values = pd.to_numeric(years.astype(object), errors="coerce")
        out["year"] = values.fillna(0).astype("int64")
    elif title is not None and (found := out["title"].map(year_of)).any():
        out["year"] = found.astype("int64")
    return out


def user_table(path: FileName, name: str) -> pd.DataFrame:
    """Ids, gender, age and occupation of a file of users; nothing else in it is read.

    Whole numbers are kept, other values become codes: their places in alphabetical order. A file
    without a header line and with five columns is taken for one of MovieLens, ``user gender age
    occupation zip`` or ``user age gender occupation zip``; of any other only the first column, the
    users, is read.

    Args:
        path: The file, of any kind that :func:`tgrec.datasets.read_interactions` reads.
        name: What to call the column of ids.

    Raises:
        DataFileError: If there is no column of users, or a value is missing.
    """
    table = read_file(path)
    if _headless(table):
        fields = ["user", *range(1, table.shape[1])]
        if len(fields) == 5:
            numbers = pd.to_numeric(table[1], errors="coerce").notna().all()
            fields[1:4] = ["age", "gender", "occupation"] if numbers else [
                "gender", "age", "occupation"]  # fmt: skip
        table = table.set_axis(fields, axis=1)
    ids = _column(table, path, NAMES["user"] | {"id"})
    if ids is None:
        raise DataFileError(f"{path}: there is no column of users among {list(table.columns)}; "
                            f"call it user_id")  # fmt: skip
    out = pd.DataFrame({name: ids})
    for feature, usual in _FEATURES.items():
        column = _column(table, path, usual)
        if column is None:
            continue
        missing = column.isna().to_numpy()
        if missing.any():
            raise DataFileError(f"{path}: column {column.name!r} is empty in "
                                f"{where(missing, column)}; fill it, or drop it")  # fmt: skip
        out[feature] = _codes(column)
    return out


def multi_hot(genres: Sequence[str]) -> np.ndarray:
    """``[N, G]`` float32 of N texts such as ``Action|Drama``, columns in alphabetical order."""
    split = [set(filter(None, text.split("|"))) for text in genres]
    names = sorted(set().union(*split))
    place = {name: column for column, name in enumerate(names)}
    hot = np.zeros((len(split), len(names)), dtype=np.float32)
    for row, own in enumerate(split):
        hot[row, [place[name] for name in own]] = 1.0
    return hot


def _headless(table: pd.DataFrame) -> bool:
    return bool(table.columns.tolist() == list(range(table.shape[1])))


def _column(table: pd.DataFrame, path: FileName, usual: set[str] | frozenset[str]
            ) -> pd.Series | None:  # fmt: skip
    """The one column with a usual name, or None."""
    found = [c for c in table.columns if plain_name(str(c)) in usual]
    if len(found) > 1:
        raise DataFileError(f"{path}: the columns {found} could be meant for one another; drop all "
                            f"but one of them")  # fmt: skip
    return table[found[0]] if found else None


def _codes(column: pd.Series) -> pd.Series:
    """Whole numbers as they are, all else as places in alphabetical order."""
    numbers = pd.to_numeric(column.astype(object), errors="coerce")
    if numbers.notna().all() and (numbers % 1 == 0).all():
        return numbers.astype("int64")
    codes, _ = pd.factorize(column.astype(str), sort=True)
    return pd.Series(codes.astype("int64"), index=column.index)


def _genres(column: pd.Series) -> list[str]:
    """``Action|Drama`` of that, of ``Drama, Action`` and of ``Action;Drama``."""
    texts = column.tolist()
    sep = next((s for s in ("|", ";", ",") if any(s in text for text in texts)), "|")
    parts = ([part.strip() for part in text.split(sep)] for text in texts)
    return ["|".join(p for p in own if p.lower() not in _NO_GENRE) for own in parts]
