"""Oracles, searches, selections and certificates: which policies to train, and how good they are for everyone."""

from palm.portfolio.bestofn import BestOfNOracle
from palm.portfolio.callback import CallbackOracle
from palm.portfolio.certify import Certificate, certify
from palm.portfolio.confidence import Confidence, confidence, held_out_confidence
from palm.portfolio.crossfit import CrossFit, cross_fit
from palm.portfolio.curve import CurvePoint, plan_curve
from palm.portfolio.extend import extend
from palm.portfolio.finite import PoolOracle
from palm.portfolio.front import hypervolume, pareto_front
from palm.portfolio.gibbs import Diagnostics, GibbsOracle
from palm.portfolio.least_gap import LeastGap, least_gaps
from palm.portfolio.on_prompts import OnPrompts, optimal_on
from palm.portfolio.oracle import Oracle, Solution
from palm.portfolio.plan import plan_portfolio
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
    "LeastGap",
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
    "held_out_confidence",
    "hypervolume",
    "keep_for_users",
    "least_gaps",
    "optimal_on",
    "pareto_front",
    "plan_curve",
    "plan_portfolio",
    "refine_for_users",
    "refine_weights",
]
