"""Parts of a network that a training leaves as they are."""

from __future__ import annotations

from torch import nn

from cpnpose.models.cpn import CPN
from cpnpose.training.pose_options import PoseTraining


def freeze_batch_norm(model: nn.Module) -> None:
    """Put every batch normalisation layer into eval mode: it uses its running statistics and leaves them alone."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def frozen_blocks(model: CPN, options: PoseTraining) -> list[nn.Module]:
    """The parts of the backbone that ``options.freeze_blocks`` leaves alone."""
    return model.backbone.blocks()[: options.freeze_blocks]  # type: ignore[operator, no-any-return]
