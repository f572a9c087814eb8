"""From a user's weight to the policy that serves them."""

from palm.routing.router import Router, Routes

__all__ = ["Router", "Routes"]
