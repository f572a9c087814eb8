"""Stub."""


def collect(context):
    return None
