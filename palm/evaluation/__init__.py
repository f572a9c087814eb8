"""Accuracy, coverage, diversity, and what trained policies really give."""

from palm.evaluation.accuracy import Accuracy, accuracy, compare, pooled
from palm.evaluation.calibration import (
    Reliability,
    accuracy_by_uncertainty,
    basis_angles,
    logit_coverage,
    region_coverage,
    reliability,
)
from palm.evaluation.coverage import Coverage, coverage
from palm.evaluation.diversity import Diversity, diversity
from palm.evaluation.few_shot import FewShot, few_shot
from palm.evaluation.intervals import Estimate, bootstrap_mean

__all__ = [
    "Accuracy",
    "Coverage",
    "Diversity",
    "Estimate",
    "FewShot",
    "Reliability",
    "accuracy",
    "accuracy_by_uncertainty",
    "basis_angles",
    "bootstrap_mean",
    "compare",
    "coverage",
    "diversity",
    "few_shot",
    "logit_coverage",
    "pooled",
    "region_coverage",
    "reliability",
]
