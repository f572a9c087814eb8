"""Ids of users, items and groups: opaque strings, and never what stands for a missing one."""

import numpy as np


def as_ids(ids: object, *, name: str) -> np.ndarray:
    """Ids as an array of strings; whole numbers become the strings that they are written as.

    Args:
        ids: (n,) text or numbers; a list, an array, a column.
        name: the argument's name in messages.

    Returns:
        (n,) of NumPy's strings, a copy.

    Raises:
        ValueError: not one-dimensional (a single id, say), or an id is None, NaN or holds a NUL character, which NumPy's strings
            lose at their end: two ids would become one.
    """
    if isinstance(ids, str | bytes):
        raise ValueError(f"{name}: expected a list or array of ids, got the text {ids!r:.60}")
    array = ids if isinstance(ids, np.ndarray) and ids.dtype.kind == "U" else np.asarray(ids, dtype=object)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected a list or array of ids, got the shape {array.shape}")
    if array.dtype.kind == "U":
        return array.copy()
    if len(array) == 0:
        return np.zeros(0, dtype="<U1")
    for number, value in enumerate(array):
        if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
            raise ValueError(f"{name}: expected ids, got {value!r} at position {number}")
        if isinstance(value, str) and "\0" in value:
            raise ValueError(f"{name}: expected ids without NUL characters, got {value!r:.60} at position {number}")
    return array.astype(str)
