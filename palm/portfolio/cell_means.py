"""The finitely many means over prompts that bound a planned portfolio's gap over all prompts from both sides.

The cells of the portfolio are those of its *planned* values, from other prompts, so they and their corners c are fixed before the
certifying prompts are seen. Let D_j be the cell in which policy j was planned to be the best member.

From above: for w in D_j, OPT(w) - (1 + s) L_S(w) <= OPT(w) - (1 + s) E u_xj(w), since L_S is at least any member's utility. The
right side is convex in w (OPT is, u is linear), so over the polytope D_j it is largest at one of its corners, and the cells cover
the simplex: (1 + s) L_S >= OPT everywhere if E (OPT_x(c) - (1 + s) u_xj(c)) <= 0 for every policy j and corner c of its own cell.

From below: OPT(c) - (1 + s) L_S(c) is the least of E (OPT_x(c) - (1 + s) u_xj(c)) over *all* members j, so the gap is above s if
at some corner all these means are positive.

For delta the means of OPT_x - (1 + given) u_xj are compared with delta, for captured gain those of OPT_x - u_xj - (1 - gamma)
(OPT_x - w.J_ref,x) with 0, convex in w as well. No net and no Lipschitz constant comes in.
"""

from dataclasses import dataclass

import numpy as np

from palm.portfolio.certify import Policies, folded
from palm.portfolio.corners import corner_weights
from palm.portfolio.on_prompts import OnPrompts

_TIE = 1e-7
_MOST_BELOW = 4000  # means from below; corners are left out beyond, which only weakens the bound


@dataclass(frozen=True)
class CellMeans:
    """Samples, prompt by prompt, of what is had and could be had at pairs of a corner and a member.

    Attributes:
        weights: (n, K) the corners.
        member: (n,) the members; m is the reference.
        optimum: (P, n) OPT_x at the corner.
        utility: (P, n) the member's there.
        base: (P, n) the reference's there.
    """

    weights: np.ndarray
    member: np.ndarray
    optimum: np.ndarray
    utility: np.ndarray
    base: np.ndarray

    def __len__(self) -> int:
        return len(self.member)

    @property
    def regret(self) -> np.ndarray:
        """(P, n) what the member lacks."""
        return self.optimum - self.utility

    @property
    def gain(self) -> np.ndarray:
        """(P, n) what is to be gained over the reference."""
        return self.optimum - self.base


def own_cells(planned: Policies, prompts: OnPrompts) -> CellMeans:
    """Every member at the corners of its own planned cell: the means that bound from above.

    Args:
        planned: weights and cells, from other prompts than the certifying ones.
        prompts: the certifying ones, with the same members.
    """
    corners = corner_weights(folded(planned.value, planned.cost, planned.reference))
    utility = np.column_stack([corners @ planned.value.T - planned.cost, corners @ planned.reference])
    corner, member = np.nonzero(utility >= utility.max(axis=1, keepdims=True) - _TIE)
    return _means(prompts, corners, corner, member)


def all_members(planned: Policies, prompts: OnPrompts) -> CellMeans:
    """All members at each of the planned cells' corners, corner after corner: the means that bound from below."""
    corners = corner_weights(folded(planned.value, planned.cost, planned.reference))
    members = len(planned.value) + 1
    most = max(_MOST_BELOW // members, 1)
    if len(corners) > most:
        corners = corners[np.unique(np.linspace(0, len(corners) - 1, most).astype(np.intp))]
    return _means(prompts, corners, np.repeat(np.arange(len(corners)), members), np.tile(np.arange(members), len(corners)))


def _means(prompts: OnPrompts, corners: np.ndarray, corner: np.ndarray, member: np.ndarray) -> CellMeans:
    weights, reference = corners[corner], prompts.reference
    value = np.concatenate([prompts.value, reference[None]])
    cost = np.concatenate([prompts.cost, np.zeros((1, len(reference)))])
    utility = np.einsum("apk,ak->pa", value[member], weights) - cost[member].T
    return CellMeans(weights, member, prompts.optimum(corners)[:, corner], utility, reference @ weights.T)
