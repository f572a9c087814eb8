"""How many numbers of users' hidden vectors tell users apart: none is the sign of posterior collapse.

Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders", arXiv 1509.00519, count a number of the
hidden vector as active where its posterior mean varies over what is observed by more than a threshold.
"""

import numpy as np

ACTIVE = 0.005
"""Variance over users above which a number of their vectors counts as used."""


def active_units(mean: np.ndarray) -> int:
    """How many of D numbers are used, from users' (U, D) posterior means; 0 for a single user, who differs from nobody."""
    return int((mean.var(axis=0) > ACTIVE).sum()) if len(mean) else 0
