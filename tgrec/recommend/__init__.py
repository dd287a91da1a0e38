"""What a person uses after training: recommend, explain, similar items, save and load."""

from tgrec.recommend.explain import Explanation, PastEvent, Path
from tgrec.recommend.profile import UserProfile
from tgrec.recommend.recommender import Recommender

__all__ = ["Explanation", "PastEvent", "Path", "Recommender", "UserProfile"]
