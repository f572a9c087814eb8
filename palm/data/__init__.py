"""Pairs in: schema, loaders, splits, candidates and the embedded world."""
