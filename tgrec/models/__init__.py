"""All models. ``MODELS`` is the list: a name, a class, nothing is looked up by string surgery."""

from tgrec.models.base import RecModel
from tgrec.models.bert4rec import BERT4Rec
from tgrec.models.bert_hybrid import (
    BERTHybridContinuous,
    BERTHybridDiscrete,
    BERTHybridFixed,
    BERTHybridLearned,
)
from tgrec.models.caser import Caser
from tgrec.models.enhanced_bert4rec import EnhancedBERT4Rec
from tgrec.models.ensemble import Ensemble
from tgrec.models.gru4rec import GRU4Rec
from tgrec.models.hstu import HSTU
from tgrec.models.io import load_model, save_model
from tgrec.models.lightgcn import LightGCN
from tgrec.models.markov import GapMarkov, SkipMarkov
from tgrec.models.popularity import Popularity
from tgrec.models.sage import SAGE
from tgrec.models.sasrec import SASRec
from tgrec.models.tcn_bert4rec import TCNBERT4Rec
from tgrec.models.tgt_bert4rec import TGT_BERT4Rec, TGTBERT4Rec
from tgrec.models.trigrec import TriGRec

MODELS: dict[str, type[RecModel]] = {
    "popularity": Popularity,
    "markov": SkipMarkov,
    "gap_markov": GapMarkov,
    "sasrec": SASRec,
    "bert4rec": BERT4Rec,
    "enhanced_bert4rec": EnhancedBERT4Rec,
    "tgt_bert4rec": TGTBERT4Rec,
    "sage": SAGE,
    "lightgcn": LightGCN,
    "gru4rec": GRU4Rec,
    "caser": Caser,
    "hstu": HSTU,
    "tcn_bert4rec": TCNBERT4Rec,
    "bert_hybrid_fixed": BERTHybridFixed,
    "bert_hybrid_discrete": BERTHybridDiscrete,
    "bert_hybrid_learned": BERTHybridLearned,
    "bert_hybrid_continuous": BERTHybridContinuous,
    "trigrec": TriGRec,
}

__all__ = [
    "HSTU",
    "MODELS",
    "SAGE",
    "BERT4Rec",
    "BERTHybridContinuous",
    "BERTHybridDiscrete",
    "BERTHybridFixed",
    "BERTHybridLearned",
    "Caser",
    "EnhancedBERT4Rec",
    "Ensemble",
    "GRU4Rec",
    "GapMarkov",
    "LightGCN",
    "Popularity",
    "RecModel",
    "SASRec",
    "SkipMarkov",
    "TCNBERT4Rec",
    "TGTBERT4Rec",
    "TGT_BERT4Rec",
    "TriGRec",
    "load_model",
    "save_model",
]
