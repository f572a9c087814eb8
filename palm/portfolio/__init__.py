"""Oracles, searches, selections and certificates: which policies to train, and how good they are for everyone."""

from palm.portfolio.bestofn import BestOfNOracle
from palm.portfolio.callback import CallbackOracle
from palm.portfolio.certify import Certificate, certify
from palm.portfolio.confidence import Confidence, confidence
from palm.portfolio.crossfit import CrossFit, cross_fit
from palm.portfolio.extend import extend
from palm.portfolio.finite import PoolOracle
from palm.portfolio.gibbs import Diagnostics, GibbsOracle
from palm.portfolio.on_prompts import OnPrompts, optimal_on
from palm.portfolio.oracle import Oracle, Solution
from palm.portfolio.plan import CurvePoint, plan_curve, plan_portfolio
from palm.portfolio.population import Population, UserChoice, keep_for_users
from palm.portfolio.portfolio import Portfolio
from palm.portfolio.refine import Refined, refine_for_users, refine_weights

__all__ = [
    "BestOfNOracle",
    "CallbackOracle",
    "Certificate",
    "Confidence",
    "CrossFit",
    "CurvePoint",
    "Diagnostics",
    "GibbsOracle",
    "OnPrompts",
    "Oracle",
    "PoolOracle",
    "Population",
    "Portfolio",
    "Refined",
    "Solution",
    "UserChoice",
    "certify",
    "confidence",
    "cross_fit",
    "extend",
    "keep_for_users",
    "optimal_on",
    "plan_curve",
    "plan_portfolio",
    "refine_for_users",
    "refine_weights",
]
