"""Texts as frozen features, and pairs of them."""
