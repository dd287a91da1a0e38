"""From a table of events to recommendations by title, on simulated data, in well under a minute.

python examples/quickstart.py
"""

from __future__ import annotations

import torch

from tgrec.data import Targets, TemporalRecGraph, leave_one_out
from tgrec.datasets import simulate_movielens
from tgrec.loader import SeedLoader
from tgrec.metrics import top_k
from tgrec.models import Popularity, RecModel, SASRec
from tgrec.sampler import EventIndex, past_items
from tgrec.training import evaluate, fit


def main() -> None:
    # The store: a temporal HeteroData. from_pandas() builds the same from a table of your own.
    graph, oracle = simulate_movielens(num_users=500, num_items=300, mean_events=40)
    sizes = f"{graph.num_users} users, {graph.num_items} films, {graph.num_events} events"
    print(f"simulated data: {sizes}")

    # The last event of each user is the test target, the one before it the validation target.
    split = leave_one_out(graph)
    models: dict[str, RecModel] = {
        "popularity": Popularity.from_graph(split.train),
        "sasrec": SASRec.from_graph(split.train, d_model=32, max_len=50),
    }
    for name, model in models.items():
        fit(model, split, epochs=8, batch_size=32, lr=5e-3, show=False)
        full = evaluate(model, split, split.test).metrics()["full"]
        print(
            f"{name}: NDCG@10 {full['NDCG@10']:.4f}, HR@10 {full['HR@10']:.4f} (all films ranked)"
        )

    user, titles = graph.index_of("user", [7]), graph.strings("item", "title")
    print("user 7 saw last:", ", ".join(titles[i] for i in latest(graph, user)))
    print(
        "user 7 may like:", ", ".join(titles[i] for i in recommend(models["sasrec"], graph, user))
    )


def latest(graph: TemporalRecGraph, user: torch.Tensor, k: int = 3) -> list[int]:
    """The last ``k`` items of one user, newest last."""
    events = graph.to_pandas()
    mine = events[events["user_id"] == int(graph.raw_ids("user")[int(user)])]
    return graph.index_of("item", mine["item_id"].to_numpy()[-k:]).tolist()


@torch.no_grad()
def recommend(
    model: RecModel, graph: TemporalRecGraph, user: torch.Tensor, k: int = 5
) -> list[int]:
    """The ``k`` best items of one user after all that is known, without those already seen."""
    index = EventIndex(graph)
    after_all = torch.full_like(user, index.end)  # a cut: everything before it is visible
    question = Targets(user, after_all, item=torch.zeros_like(user))
    scores = model.eval().score(SeedLoader(index, model.sampling).batch(question))
    best: list[int] = top_k(scores, k, exclude=past_items(index, user, after_all))[0].tolist()
    return best


if __name__ == "__main__":
    main()
