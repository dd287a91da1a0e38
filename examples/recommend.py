"""From a table of ratings to recommendations with titles, and why, on simulated data.

python examples/recommend.py
"""

from __future__ import annotations

import pandas as pd

import tgrec
from tgrec.datasets import simulate_movielens


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simulated ratings (userId, movieId, rating, timestamp) and films (movieId, title, genres)."""
    graph, _ = simulate_movielens(num_users=200, num_items=240, mean_events=30)
    ratings = graph.to_pandas().rename(columns={"user_id": "userId", "item_id": "movieId"})
    genre = [[f"shelf {g}" for g in row.nonzero().view(-1).tolist()] for row in graph["item"].genre]
    films = pd.DataFrame(
        {
            "movieId": range(1, graph.num_items + 1),
            "title": graph.strings("item", "title"),
            "genres": ["|".join(names) for names in genre],
        }
    )
    return ratings.drop(columns="event_id"), films


def main() -> None:
    ratings, films = tables()
    print("SIMULATED data:", len(ratings), "ratings")

    # Five lines, the import included.
    rec = tgrec.Recommender("sasrec", max_len=30, d_model=32)
    rec.fit(ratings, items=films, epochs=8, lr=5e-3, show=False)
    print(rec.recommend(user_id=7, top_k=5))
    print(rec.explain(user_id=7, item_id=rec.recommend(user_id=7, top_k=1)["item_id"][0]))

    print("\nwhat user 7 would have been offered before the last session:")
    print(rec.recommend(user_id=7, top_k=3, at="2000-12-01"))
    print("\nsomebody new, who has just seen two films:")
    print(rec.recommend(history=[1, 2], top_k=3))
    print("\nlike", films["title"][0])
    print(rec.similar_items(1, top_k=3))
    print(f"\n{rec.user_profile(7)}")


if __name__ == "__main__":
    main()
