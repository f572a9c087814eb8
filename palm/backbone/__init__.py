"""Training a language or reward model end to end as the backbone of a personalised reward: one file per method, one trainer."""

from palm.backbone.bradley_terry import BradleyTerryHead
from palm.backbone.heads import Head
from palm.backbone.lore import LoReHead
from palm.backbone.train import BackboneOptions, Trained, fitted_reward, train_backbone
from palm.backbone.vrf import VRFHead

HEADS: dict[str, type[Head]] = {"BradleyTerry": BradleyTerryHead, "LoRe": LoReHead, "VRF": VRFHead}
"""Every method by name; the only place to register one."""

__all__ = [
    "HEADS",
    "BackboneOptions",
    "BradleyTerryHead",
    "Head",
    "LoReHead",
    "Trained",
    "VRFHead",
    "fitted_reward",
    "train_backbone",
]
