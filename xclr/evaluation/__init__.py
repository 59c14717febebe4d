"""Evaluation: frozen features judged by suites, scores with intervals, one table to compare them."""

from xclr.evaluation.background import background_suite
from xclr.evaluation.data import FeatureSet, Labels, SuiteResult, load_features, load_labels
from xclr.evaluation.heads import HeadConfig, LinearHead, RidgeHead, fit_linear, fit_ridge
from xclr.evaluation.keywords import keywords_suite
from xclr.evaluation.linear import linear_suite
from xclr.evaluation.score import Score, Summary, bootstrap_half_width, summarise, t_half_width
from xclr.evaluation.suite import SUITES

__all__ = [
    "SUITES",
    "FeatureSet",
    "HeadConfig",
    "Labels",
    "LinearHead",
    "RidgeHead",
    "Score",
    "SuiteResult",
    "Summary",
    "background_suite",
    "bootstrap_half_width",
    "fit_linear",
    "fit_ridge",
    "keywords_suite",
    "linear_suite",
    "load_features",
    "load_labels",
    "summarise",
    "t_half_width",
]
