"""Every method of METHODS with less training than by default, for tests of what all of them promise."""

from palm.rewards import METHODS

OPTIONS = {
    "PAL": {"steps": 200, "hidden": 16, "dim": 8},
    "VPL": {"steps": 200, "hidden": 16, "latent": 4},
    "VRF": {"steps": 200, "rank": 3, "dim": 16, "hidden": 32},
}


def estimator(method, **options):
    return METHODS[method](**{**OPTIONS.get(method, {}), **options})
