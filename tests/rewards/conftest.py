import pytest
from planted_users import plant
from quick_methods import estimator


@pytest.fixture(scope="session")
def planted():
    """Options of `plant` -> a planted world."""
    return plant


@pytest.fixture(scope="session")
def conflicting():
    """Users of whom each wants one of two unrelated things."""
    return plant(alpha=0.05)


@pytest.fixture(scope="session")
def small():
    """A few users with a few pairs each, for what needs no statistics."""
    return plant(users=9, pairs=12, width=4, texts=60)


@pytest.fixture(scope="session")
def fitted(small):
    """Name of a method -> its model of the small world; fitted once."""
    models = {}

    def fit(method):
        if method not in models:
            models[method] = estimator(method).fit(small.seen, seed=3)
        return models[method]

    return fit
