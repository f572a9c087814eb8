"""Oracles, searches, selections and certificates: which policies to train, and how good they are for everyone."""

from palm.portfolio.bestofn import BestOfNOracle
from palm.portfolio.callback import CallbackOracle
from palm.portfolio.certify import Certificate, certify
from palm.portfolio.finite import PoolOracle
from palm.portfolio.gibbs import Diagnostics, GibbsOracle
from palm.portfolio.oracle import Oracle, Solution
from palm.portfolio.plan import CurvePoint, plan_curve, plan_portfolio
from palm.portfolio.portfolio import Portfolio

__all__ = [
    "BestOfNOracle",
    "CallbackOracle",
    "Certificate",
    "CurvePoint",
    "Diagnostics",
    "GibbsOracle",
    "Oracle",
    "PoolOracle",
    "Portfolio",
    "Solution",
    "certify",
    "plan_curve",
    "plan_portfolio",
]
