"""Oracles, searches, selections and certificates: which policies to train, and how good they are for everyone."""

from palm.portfolio.certify import Certificate, certify
from palm.portfolio.confidence import Confidence, confidence
from palm.portfolio.extend import extend
from palm.portfolio.on_prompts import OnPrompts, optimal_on
from palm.portfolio.oracle import Diagnostics, GibbsOracle, Oracle, Solution
from palm.portfolio.plan import CurvePoint, plan_curve, plan_portfolio
from palm.portfolio.portfolio import Portfolio

__all__ = [
    "Certificate",
    "Confidence",
    "CurvePoint",
    "Diagnostics",
    "GibbsOracle",
    "OnPrompts",
    "Oracle",
    "Portfolio",
    "Solution",
    "certify",
    "confidence",
    "extend",
    "optimal_on",
    "plan_curve",
    "plan_portfolio",
]
