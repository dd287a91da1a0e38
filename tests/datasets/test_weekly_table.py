"""Tables of weeks: reading them, graphs of one week and of all, and every way to be wrong."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.datasets import (
    DataFileError,
    create_weekly_heterodata_from_df,
    generate_dataset,
    id_features,
    load_graph,
    load_interactions_from_csv,
    save_graph,
    week_cut,
    week_number,
    week_range,
    week_targets,
    weekly_graph,
)

HEADER = "ip_address,pixel_event_id,n_interactions,week_number\n"
# Weeks 2 to 5 without a week 4; b meets 7 twice in week 2.
TABLE = HEADER + "b,7,2,2\na,7,1,3\nb,9,4,2\nb,7,3,2\na,30,1,5\nb,30,2,5\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# ---- reading --------------------------------------------------------------------------------


def test_a_table_by_hand(tmp_path: Path) -> None:
    df, users, events, user_x, event_x = load_interactions_from_csv(write(tmp_path, TABLE), 3, 5)
    assert users == {"a": 0, "b": 1}
    assert events == {7: 0, 9: 1, 30: 2}
    assert list(df) == [*HEADER.strip().split(","), "user_index", "event_index"]
    assert df.to_numpy().tolist() == [
        ["b", 7, 5, 2, 1, 0],
        ["b", 9, 4, 2, 1, 1],
        ["a", 7, 1, 3, 0, 0],
        ["a", 30, 1, 5, 0, 2],
        ["b", 30, 2, 5, 1, 2],
    ]
    assert user_x.shape == (2, 3)
    assert event_x.shape == (3, 5)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda b: b.replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(lambda b: b"\xef\xbb\xbf" + b, id="bom"),
        pytest.param(lambda b: b.rstrip(b"\n"), id="no-final-newline"),
        pytest.param(lambda b: b.replace(b",2,2\n", b",2.0,2\n"), id="counts-with-point"),
    ],
)
def test_harmless_differences_change_nothing(tmp_path: Path, change) -> None:
    plain = load_interactions_from_csv(write(tmp_path, TABLE))[0]
    assert load_interactions_from_csv(write(tmp_path, change(TABLE.encode())))[0].equals(plain)


def test_own_columns_and_no_counts(tmp_path: Path) -> None:
    path = write(tmp_path, "who,what,w,note\nx,NA,0,n\nx,NA,0,n\ny,null,1,\n")
    df, users, events, *_ = load_interactions_from_csv(path, user="who", event="what", week="w")
    assert df["n_interactions"].tolist() == [2, 1]
    assert df["week_number"].tolist() == [0, 1]
    assert (users, events) == ({"x": 0, "y": 1}, {"NA": 0, "null": 1})
    path = write(tmp_path, TABLE)
    assert load_interactions_from_csv(path, count=None)[0]["n_interactions"].tolist() == [
        2, 1, 1, 1, 1,
    ]  # fmt: skip


def test_latin_1_is_read(tmp_path: Path) -> None:
    users = load_interactions_from_csv(write(tmp_path, HEADER.encode() + b"J\xf6rg,1,1,1\n"))[1]
    assert users == {"J\u00f6rg": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table.csv: is empty"),
        (HEADER, r"table.csv: there are no rows"),
        ("<!doctype html><p>404", r"web page"),
        (b"PK\x03\x04", r"zip archive"),
        (HEADER + "a,1,1,1,1\n", r"table.csv: .*as many fields"),
        (HEADER + 'a,1,1,1\n"a,1,1,1\n', r"table.csv: .*as many fields"),
        (
            "ip,pixel_event_id,week_number\na,1,1\n",
            r"'user': .*\['ip', 'pixel_.*name it with user=",
        ),
        ("ip_address,event,week_number\na,1,1\n", r"'event': .*no column 'pixel_event_id'"),
        ("ip_address,pixel_event_id,week\na,1,1\n", r"'week': .*did you mean week='week'"),
        (HEADER + "a,1,1,1\n,1,1,1\n", r"'user': .*missing ids in row 2"),
        (HEADER + "a,,1,1\n", r"'event': .*missing ids in row 1"),
        (HEADER + "a,1,,1\n", r"'count': .*missing values in row 1 "),
        (HEADER + "a,1,1,\n", r"'week': .*missing values in row 1 "),
        (HEADER + "a,1,0,1\n", r"'count': column 'n_interactions' has 0 in row 1"),
        (HEADER + "a,1,-2,1\n", r"'count': .*has -2 in row 1 .*whole numbers from 1"),
        (HEADER + "a,1,1.5,1\n", r"'count': .*has 1.5 in row 1"),
        (HEADER + "a,1,inf,1\n", r"'count': .*has inf in row 1"),
        (HEADER + "a,1,many,1\n", r"'count': .*not numeric \(first value 'many'\)"),
        (HEADER + "a,1,1,1\na,1,1,2.5\n", r"'week': column 'week_number' has 2.5 in row 2"),
        (HEADER + "a,1,1,-1\n", r"'week': .*has -1 in row 1"),
        (HEADER + "a,1,1,202301\n", r"'week': .*running numbers.*number the weeks through"),
        (HEADER + "a,1,1,2023-W05\n", r"'week': .*not numeric \(first value '2023-W05'\)"),
        (HEADER + "a,1,1,True\n", r"'week': .*not numeric"),
        (HEADER + "a,-5,1,1\n", r"'event': .*negative id -5"),
        (HEADER + "a,1.5,1,1\n", r"'event': .*floating-point ids"),
    ],
)
def test_bad_files_name_the_column_and_the_rows(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(DataFileError, match=message):
        load_interactions_from_csv(write(tmp_path, text))


def test_other_unusable_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'csv_path': there is no file .*generate_dataset"):
        load_interactions_from_csv(tmp_path / "nothing.csv")
    path = write(tmp_path, TABLE)
    with pytest.raises(DataFileError, match=r"'count': there is no column 'cnt'"):
        load_interactions_from_csv(path, count="cnt")
    with pytest.raises(ValueError, match=r"'user_dim' needs to be a positive integer \(got 0\)"):
        load_interactions_from_csv(path, user_dim=0)
    with pytest.raises(TypeError, match=r"'df' needs to be a DataFrame \(got list\)"):
        weekly_graph([1])  # type: ignore[arg-type]


# ---- features -------------------------------------------------------------------------------


def test_features_are_a_function_of_the_id_alone(tmp_path: Path) -> None:
    *_, user_x, event_x = load_interactions_from_csv(write(tmp_path, TABLE))
    assert user_x.shape == (2, 32)
    assert event_x.shape == (3, 64)
    # Other counts, weeks, rows and ids beside it: the same code.
    *_, other_x, _ = load_interactions_from_csv(write(tmp_path, HEADER + "b,1,9,0\nc,1,1,1\n"))
    assert torch.equal(other_x[0], user_x[1])
    assert not torch.equal(other_x[1], user_x[1])
    assert torch.equal(id_features([7, 9, 30], 64, "event"), event_x)
    assert torch.equal(id_features(torch.tensor([7, 9, 30]), 64, "event"), event_x)
    assert not torch.equal(id_features([7, 9, 30], 64, "user"), event_x)
    # The same in every version: written out once.
    assert id_features(["10.0.0.1"], 3, "user")[0].tolist() == pytest.approx(
        [0.1212, -1.4173, 0.1778], abs=1e-4
    )


def test_features_look_standard_normal_and_tell_ids_apart() -> None:
    code = id_features(range(2000), 16)
    assert code.dtype == torch.float32
    assert float(code.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(code.std()) == pytest.approx(1.0, abs=0.02)
    closeness = torch.nn.functional.normalize(code) @ torch.nn.functional.normalize(code).T
    assert float(closeness.fill_diagonal_(0.0).abs().max()) < 0.99
    with pytest.raises(ValueError, match=r"'dim' needs to be a positive integer \(got -1\)"):
        id_features([1], -1)


# ---- one graph per week ---------------------------------------------------------------------


def test_a_week_as_heterodata(tmp_path: Path) -> None:
    df, _, _, user_x, event_x = load_interactions_from_csv(write(tmp_path, TABLE), 3, 5)
    data = create_weekly_heterodata_from_df(df[df["week_number"] == 2], user_x, event_x)
    assert data.validate()
    assert data.node_types == ["user", "event"]
    assert data.edge_types == [
        ("user", "interacts_with", "event"),
        ("event", "rev_interacts_with", "user"),
    ]
    there, back = (data[t] for t in data.edge_types)
    assert there.edge_index.tolist() == [[1, 1], [0, 1]]
    assert back.edge_index.tolist() == [[0, 1], [1, 1]]
    assert there.edge_attr.tolist() == back.edge_attr.tolist() == [[5.0], [4.0]]
    assert (data["user"].num_nodes, data["event"].num_nodes) == (2, 3)
    assert data["user"].x is user_x


def test_an_empty_week_has_all_nodes(tmp_path: Path) -> None:
    df, _, _, user_x, event_x = load_interactions_from_csv(write(tmp_path, TABLE))
    data = create_weekly_heterodata_from_df(df[df["week_number"] == 4], user_x, event_x)
    assert data.validate()
    assert (data["user"].num_nodes, data["event"].num_nodes) == (2, 3)
    for store in data.edge_stores:
        assert store.edge_index.shape == (2, 0)
        assert store.edge_index.dtype == torch.int64
        assert store.edge_attr.shape == (0, 1)


def test_several_weeks_add_up(tmp_path: Path) -> None:
    df, _, _, user_x, event_x = load_interactions_from_csv(write(tmp_path, TABLE))
    df = pd.concat([df, df])
    data = create_weekly_heterodata_from_df(df, user_x, event_x)
    there = data["user", "interacts_with", "event"]
    assert there.edge_index.tolist() == [[0, 0, 1, 1, 1], [0, 2, 0, 1, 2]]
    assert there.edge_attr.view(-1).tolist() == [2.0, 2.0, 10.0, 8.0, 4.0]


def test_rows_of_another_file_are_refused(tmp_path: Path) -> None:
    df, _, _, user_x, event_x = load_interactions_from_csv(write(tmp_path, TABLE))
    with pytest.raises(ValueError, match=r"no columns \['user_index', 'event_index'\] among"):
        create_weekly_heterodata_from_df(df[["ip_address", "n_interactions"]], user_x, event_x)
    with pytest.raises(ValueError, match=r"'event_features' has 2 rows, .* from 0 to 2"):
        create_weekly_heterodata_from_df(df, user_x, event_x[:2])
    with pytest.raises(ValueError, match=r"'user_features' needs to be a tensor of shape"):
        create_weekly_heterodata_from_df(df, user_x[0], event_x)


# ---- one graph for all weeks ----------------------------------------------------------------


def test_all_weeks_in_one_graph(tmp_path: Path) -> None:
    df, users, events, *_ = load_interactions_from_csv(write(tmp_path, TABLE))
    graph = weekly_graph(df)
    assert graph.validate()
    assert graph.raw_ids("user") == list(users)
    assert graph.raw_ids("item").tolist() == list(events)
    store = graph["user", "interacts", "item"]
    assert store.edge_index.tolist() == df[["user_index", "event_index"]].to_numpy().T.tolist()
    assert store.edge_attr.tolist() == [[5.0], [4.0], [1.0], [1.0], [2.0]]
    assert week_number(store.time).tolist() == df["week_number"].tolist()
    assert pd.Timestamp(int(store.time[0]), unit="s") == pd.Timestamp("1970-01-19")
    assert week_range(graph) == range(2, 6)
    assert [view.num_events for view in graph.snapshots("W")] == [2, 1, 0, 2]
    assert [graph.before(week_cut(graph, w)).num_events for w in range(1, 8)] == [
        0, 0, 2, 3, 3, 5, 5,
    ]  # fmt: skip
    assert graph.before(week_cut(graph, 3))["user", "interacts", "item"].edge_attr.shape == (2, 1)
    assert [t.tolist() for t in week_targets(graph, 5)] == [[0, 1], [2, 2]]
    assert [t.tolist() for t in week_targets(graph, 4)] == [[], []]
    # Users without an event before the target week are nodes all the same.
    assert graph.before(week_cut(graph, 3)).num_users == 2


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.sampled_from("pqrs"), st.integers(1, 9), st.integers(0, 12)
        ),
        min_size=1,
        max_size=30,
    )
)
def test_any_table_keeps_every_count_at_its_place(rows: list[tuple[int, str, int, int]]) -> None:
    table = pd.DataFrame(rows, columns=["u", "e", "c", "w"])
    graph = weekly_graph(table, user="u", event="e", count="c", week="w")
    assert graph.validate()
    users, items = graph.raw_ids("user").tolist(), graph.raw_ids("item")
    first, *_, last = (*sorted(table["w"]), max(table["w"]))
    weeks = range(first, last + 1)
    views = list(graph.snapshots("W"))
    assert len(views) == len(weeks) == len(week_range(graph))
    for week, view in zip(weeks, views, strict=True):
        expected: dict[tuple[int, str], int] = {}
        for user, item, count, own in rows:
            if own == week:
                expected[user, item] = expected.get((user, item), 0) + count
        store = view["user", "interacts", "item"]
        found = {
            (users[u], items[i]): int(c)
            for u, i, c in zip(*store.edge_index.tolist(), store.edge_attr[:, 0], strict=True)
        }
        assert found == expected
        past = graph.before(week_cut(graph, week))
        assert past.num_events == len({r[:2] + r[3:] for r in rows if r[3] < week})
        user, item = week_targets(graph, week)
        pairs = [(users[u], items[i]) for u, i in zip(user.tolist(), item.tolist(), strict=True)]
        assert pairs == sorted(expected)


def test_the_graph_can_be_saved(tmp_path: Path) -> None:
    table = generate_dataset(tmp_path / "t.csv", 10, 20, 3)
    graph = weekly_graph(table)
    save_graph(graph, tmp_path / "g.safetensors")
    back = load_graph(tmp_path / "g.safetensors")
    store = back["user", "interacts", "item"]
    assert torch.equal(store.edge_attr, graph["user", "interacts", "item"].edge_attr)
    assert np.isclose(float(store.edge_attr.sum()), table["n_interactions"].sum())


def test_the_order_of_rows_changes_nothing() -> None:
    table = pd.read_csv(io.StringIO(TABLE))
    one, two = weekly_graph(table), weekly_graph(table.iloc[::-1])
    for key, value in one["user", "interacts", "item"].items():
        assert torch.equal(value, two["user", "interacts", "item"][key])
