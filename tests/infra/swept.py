from tests.kit.sweeps import TAU, make_levels, open_sweep, small

__all__ = ["TAU", "make_levels", "open_sweep", "small"]
