"""Accuracy, coverage, diversity, and what trained policies really give."""

from palm.evaluation.accuracy import Accuracy, accuracy, compare
from palm.evaluation.coverage import Coverage, coverage
from palm.evaluation.diversity import Diversity, diversity
from palm.evaluation.intervals import Estimate, bootstrap_mean

__all__ = ["Accuracy", "Coverage", "Diversity", "Estimate", "accuracy", "bootstrap_mean", "compare", "coverage", "diversity"]
