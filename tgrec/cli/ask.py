"""``tgrec recommend``, ``similar``, ``explain`` and ``profile``: questions to a saved one."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tgrec.datasets import item_table
from tgrec.recommend import Recommender
from tgrec.recommend.folder import ABOUT
from tgrec.recommend.names import Names, words_of_codes

_NUMBER = r"-?\d+(\.\d+)?"
Folder = tyro.conf.Positional[Path]
Json = Annotated[bool, tyro.conf.arg(name="json")]
TopK = Annotated[int, tyro.conf.arg(aliases=["-k", "--top-k"])]


def recommend(
    folder: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="FOLDER")] = None,
    *,
    user_id: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--user"])] = (),
    k: TopK = 10,
    history: tuple[str, ...] | None = None,
    times: tuple[str, ...] | None = None,
    profile: str | None = None,
    at: str | None = None,
    seen: bool = False,
    model_path: Path | None = None,
    metadata_path: Path | None = None,
    as_json: Json = False,
) -> int:
    """The best items for one or several users, or for a history of anybody.

    Args:
        folder: Of a saved recommender.
        user_id: Ids of users, as in the data.
        k: How many items.
        history: Items, oldest first, instead of stored events: ids or titles, none for somebody
            who has no past.
        times: Of the items of the history, Unix seconds or dates.
        profile: What is known of somebody new, in words or in the numbers of the data, for models
            that read it: gender=F,age=25,occupation=4. With or without a history.
        at: As of this moment, Unix seconds or a date such as 2003-02-01 or 2003 (four digits are
            a year); later events are not looked at.
        seen: Also offer what the user has met before.
        model_path: The folder, as the seed project calls it; or a file in it.
        metadata_path: A table of items whose titles are shown; or recommender.json of the folder.
        as_json: Print JSON.
    """
    where = _folder(folder, model_path)
    rec = Recommender.load(where)
    users = [as_id(rec.served.users, word) for word in user_id]
    if not users and history is None and profile is None:
        raise ValueError("--user_id, --history or --profile is needed")
    if len(users) > 1 and history is not None:
        raise ValueError(f"--history belongs to one user (got {len(users)})")
    one_or_all: Any = users if len(users) > 1 else users[0] if users else None
    asker = _asker(rec, history, times, profile)
    found = rec.recommend(one_or_all, k, not seen, _moment(at), **asker)
    show_table(_with_titles(found, metadata_path, where), as_json)
    return 0


def similar(folder: Folder, *, item_id: str, k: TopK = 10, as_json: Json = False) -> int:
    """The items most like one.

    Args:
        folder: Of a saved recommender.
        item_id: Id or title of the item.
        k: How many.
        as_json: Print JSON.
    """
    rec = Recommender.load(folder)
    show_table(rec.similar_items(as_id(rec.served.items, item_id), k), as_json)
    return 0


def explain(
    folder: Folder,
    *,
    item_id: str,
    user_id: str | None = None,
    history: tuple[str, ...] | None = None,
    times: tuple[str, ...] | None = None,
    profile: str | None = None,
    at: str | None = None,
    as_json: Json = False,
) -> int:
    """Why an item has its score: the past events that carry it, paths, genres, the gate.

    Args:
        folder: Of a saved recommender.
        item_id: Id or title of the item.
        user_id: Id of the user.
        history: Items, oldest first, instead of stored events: ids or titles.
        times: Of the items of the history, Unix seconds or dates.
        profile: What is known of somebody new, as in 'tgrec recommend'.
        at: As of this moment, Unix seconds or a date.
        as_json: Print JSON.
    """
    rec = Recommender.load(folder)
    user = None if user_id is None else as_id(rec.served.users, user_id)
    asker = _asker(rec, history, times, profile)
    told = rec.explain(user, as_id(rec.served.items, item_id), at=_moment(at), **asker)
    _show(told, as_json)
    return 0


def profile(folder: Folder, *, user_id: str, as_json: Json = False) -> int:
    """What the data say of one user.

    Args:
        folder: Of a saved recommender.
        user_id: Id of the user.
        as_json: Print JSON.
    """
    rec = Recommender.load(folder)
    _show(rec.user_profile(as_id(rec.served.users, user_id)), as_json)
    return 0


def _asker(
    rec: Recommender,
    history: Sequence[str] | None,
    times: Sequence[str] | None,
    profile: str | None,
) -> dict[str, Any]:
    """What the flags say of the one who asks, as the recommender takes it."""
    items, words = rec.served.items, words_of_codes(rec.graph)
    return {
        "history": None if history is None else [as_id(items, word) for word in history],
        "times": None if times is None else [_moment(word) for word in times],
        "profile": None if profile is None else read_profile(profile, words),
    }


def as_id(names: Names, word: str) -> Any:
    """The raw id that a word on the command line means: an id, else the title of one item.

    Raises:
        ValueError: If several items have this title.
    """
    number = names.raw.dtype.kind == "i"
    if not number and word in names.index:
        return word
    if number and re.fullmatch(r"-?\d+", word):  # isdigit() is true of a raised 2
        return int(word)
    titles = [] if names.titles is None else [str(title).lower() for title in names.titles]
    found = [row for row, title in enumerate(titles) if title and title == word.lower()]
    if len(found) > 1:
        ids = [names.id(row) for row in found]
        raise ValueError(f"several items are called {word!r}: {ids[:5]}; give the id")
    return names.id(found[0]) if found else word  # the recommender says what is near


def read_profile(text: str, words: Mapping[str, Mapping[int, str]]) -> dict[str, str | float]:
    """The features in ``gender=F,age=25``; numbers as numbers, unless they are ``words`` there.

    Raises:
        ValueError: If it is written otherwise, or names a feature twice.
    """
    out: dict[str, str | float] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not (name and equals and value) or name in out:
            raise ValueError(f"--profile needs to be like gender=F,age=25 (got {text!r})")
        number = re.fullmatch(_NUMBER, value) and value not in words.get(name, {}).values()
        out[name] = float(value) if number else value
    return out


def show_table(frame: pd.DataFrame, as_json: bool) -> None:
    """A table on the screen, or as JSON: one object per row."""
    if as_json:
        print(json.dumps(frame.astype(object).to_dict("records"), indent=2))
        return
    table = Table(box=None, header_style="bold")
    for name in frame.columns:
        table.add_column(str(name), justify="right" if name == "score" else "left")
    for row in frame.itertuples(index=False):
        cells = (f"{v:.4f}" if isinstance(v, float) else str(v) for v in row)
        table.add_row(*(Text(cell) for cell in cells))
    # Without a terminal rich assumes 80 columns and would fold titles.
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def _show(told: Any, as_json: bool) -> None:
    print(json.dumps(told.to_dict(), indent=2, default=str) if as_json else str(told))


def _folder(folder: Path | None, model_path: Path | None) -> Path:
    """The folder of the recommender, of which ``--model_path`` may name a file."""
    if (folder is None) == (model_path is None):
        raise ValueError("one of FOLDER and --model_path is needed")
    if folder is not None:
        return folder
    assert model_path is not None
    for place in (model_path, *model_path.parents[:2]):
        if (place / ABOUT).is_file():
            return place
    raise FileNotFoundError(
        f"--model_path: there is no recommender at {str(model_path)!r}; it is a folder that 'tgrec "
        f"train' wrote (checkpoints that need unpickling are not read)"
    )


def _moment(at: str | None) -> Any:
    """A number as one, but for four digits, which are a year."""
    number = at is not None and re.fullmatch(_NUMBER, at) and not re.fullmatch(r"\d{4}", at)
    return float(at) if at is not None and number else at


def _with_titles(found: pd.DataFrame, path: Path | None, folder: Path) -> pd.DataFrame:
    """The titles of another table of items, if one is given."""
    if path is None or path.resolve() in ((folder / ABOUT).resolve(), folder.resolve()):
        return found
    items = item_table(path, "item_id")
    if "title" not in items:
        raise ValueError(f"--metadata_path: {path} has no titles")
    titles = dict(zip(items["item_id"].astype(str), items["title"], strict=True))
    return found.assign(title=[titles.get(str(i), "") for i in found["item_id"]])
