"""tgrec: temporal recommendation on PyTorch Geometric, one graph store and one sampler layer."""

__version__ = "0.1.0"
