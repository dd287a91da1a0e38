"""All models. ``MODELS`` is the list: a name, a class, nothing is looked up by string surgery."""

from tgrec.models.base import RecModel
from tgrec.models.bert4rec import BERT4Rec
from tgrec.models.io import load_model, save_model
from tgrec.models.lightgcn import LightGCN
from tgrec.models.markov import GapMarkov, SkipMarkov
from tgrec.models.popularity import Popularity
from tgrec.models.sage import SAGE
from tgrec.models.sasrec import SASRec
from tgrec.models.tgt_bert4rec import TGT_BERT4Rec, TGTBERT4Rec

MODELS: dict[str, type[RecModel]] = {
    "popularity": Popularity,
    "markov": SkipMarkov,
    "gap_markov": GapMarkov,
    "sasrec": SASRec,
    "bert4rec": BERT4Rec,
    "tgt_bert4rec": TGTBERT4Rec,
    "sage": SAGE,
    "lightgcn": LightGCN,
}

__all__ = [
    "MODELS",
    "SAGE",
    "BERT4Rec",
    "GapMarkov",
    "LightGCN",
    "Popularity",
    "RecModel",
    "SASRec",
    "SkipMarkov",
    "TGTBERT4Rec",
    "TGT_BERT4Rec",
    "load_model",
    "save_model",
]
