"""Evaluation: frozen features judged by suites, scores with intervals, one table to compare them."""

from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged, SuiteResult, load_features, load_labels
from xclr.evaluation.heads import HeadConfig, LinearHead, RidgeHead, fit_linear, fit_ridge
from xclr.evaluation.score import Score, Summary, bootstrap_half_width, summarise, t_half_width

__all__ = [
    "FeatureSet",
    "Features",
    "HeadConfig",
    "Labels",
    "LinearHead",
    "Ragged",
    "RidgeHead",
    "Score",
    "SuiteResult",
    "Summary",
    "bootstrap_half_width",
    "fit_linear",
    "fit_ridge",
    "load_features",
    "load_labels",
    "summarise",
    "t_half_width",
]
