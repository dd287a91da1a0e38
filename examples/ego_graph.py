"""What is around one user, as a graph, as a networkx graph, and as a picture.

python examples/ego_graph.py --out runs/ego.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from tgrec.datasets import simulate_movielens
from tgrec.plots import draw_ego


@dataclass
class Options:
    """What to draw."""

    user: int = 7
    """Raw id of a user."""
    hops: int = 2
    """1: the user's films. 2: also who else saw them."""
    max_events: int = 5
    """From every user and film only its latest so many events."""
    out: Path = Path("runs/ego.png")
    """Where the picture goes: .png, .svg or .pdf."""


def main(options: Options) -> None:
    graph, _ = simulate_movielens(num_users=500, num_items=300, mean_events=40)

    # A cut: what was known when the user came for the last time, and nothing later.
    mine = graph.ego(options.user)
    (kind,) = mine.interaction_types
    cut = int(mine[kind].event_id[-1]) + 1
    print(f"user {options.user} has {mine.num_events} events, the last is event {cut - 1}")

    around = graph.ego(options.user, options.hops, cut, options.max_events)
    print(
        f"{options.hops} hops, {options.max_events} latest events each: "
        f"{around.num_users} users, {around.num_items} films, {around.num_events} events"
    )

    net = around.to_networkx()  # hops, titles, times and ratings are attributes of it
    degrees = sorted(net.degree, key=lambda pair: -pair[1])
    busy = next(node for node, _ in degrees if node[0] == "item")
    print(f"most events here: {net.nodes[busy]['title']} ({net.degree[busy]})")

    draw_ego(around, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
