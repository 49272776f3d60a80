"""The pose network as the pipeline sees it: crops of people in, poses out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cpnpose.errors import OptionError
from cpnpose.models.cuda_graph import GraphedNetwork, Recorder, record_graph
from cpnpose.models.fuse import fuse
from cpnpose.models.int8 import ARCHITECTURE as INT8
from cpnpose.models.int8 import Int8Network, load_int8, need_cpu
from cpnpose.models.weights import WeightsMetadata, find_weights, load_cpn, read_metadata
from cpnpose.pipeline.batches import HalvingBatch
from cpnpose.pipeline.device import choose_device, choose_precision, one_at_a_time
from cpnpose.pose.decode import Decoding, decode
from cpnpose.pose.geometry import invert_affines, transform_points
from cpnpose.pose.heatmaps import mirror_maps
from cpnpose.pose.types import FloatArray, PersonCrops, Picture, Poses, Preprocessing


@dataclass(frozen=True)
class _Decoded:
    """Keypoints in crop pixels (N, 17, 2), their scores (N, 17), and the mirror's disagreement there or None."""

    xy: FloatArray
    scores: FloatArray
    mirrored_xy: FloatArray | None
    direct_xy: FloatArray | None


class PoseNetwork:
    """A CPN in its inference form, with normalisation before it and the decoding of heatmaps behind it.

    May be called from several threads.

    Args:
        model: normalised crops (N, 3, H, W) to heatmaps (N, 17, H/4, W/4); is moved to ``device`` and ``dtype``.
        input_size: (height, width) of the crops.
        preprocessing: how the pixels are normalised.
        decoding: how heatmaps become keypoints.
        flip: average with the mirrored crop, and report the disagreement.
        batch: most crops in one go; None leaves the choice to the device.
        recorder: all from pixels to keypoints runs from its recordings, see ``models/cuda_graph.py``; None records CUDA
            graphs on a graphics card and nothing elsewhere.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        input_size: tuple[int, int],
        preprocessing: Preprocessing,
        decoding: Decoding = "dark",
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        flip: bool = False,
        batch: int | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.dtype = dtype
        self.model = model.eval().to(device=self.device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.input_size = input_size
        self.preprocessing = preprocessing
        self.decoding: Decoding = decoding
        self.flip = flip
        self._batch = HalvingBatch(batch or (16 if self.device.type == "cpu" else 128), self.device)
        self.metadata: WeightsMetadata | None = None
        """Of the weights, where they came from a file."""
        # (pixel - mean) / std as one multiplication and one addition, in float32, of a whole row of a crop: with three
        # numbers instead, a channel each, they would take several times as long on a CPU.
        mean, std = (
            torch.tensor(values, device=self.device).repeat(input_size[1])
            for values in (preprocessing.mean, preprocessing.std)
        )
        self._gain, self._offset = 1 / std, -mean / std
        self._tables: nn.Module = _Tables(self)
        recorder = recorder or (record_graph if self.device.type == "cuda" else None)
        if recorder is not None:
            self._tables = GraphedNetwork(self._tables, recorder=recorder)

    @property
    def batch(self) -> int:
        """Most crops in one go."""
        return self._batch.size

    def __call__(self, crops: PersonCrops) -> Poses:
        """Poses of the people in ``crops``, row by row.

        Out of memory, the batch is halved for this and all later calls.

        Args:
            crops: N people, also of several images; N = 0 is fine.

        Returns:
            N poses in the pixels of each person's image, scores by the published formulas (see ``types``).

        Raises:
            CpnposeError: not even a single crop fits into memory.
        """
        if len(crops) == 0:
            return Poses.empty()
        with one_at_a_time(self.device):
            parts = self._batch.map(
                lambda part: self._estimate(crops.pixels[part]),
                len(crops),
                f"for a single person's crop of {self.input_size[0]}x{self.input_size[1]}",
            )
        back = invert_affines(crops.affines)
        scores = np.concatenate([part.scores for part in parts])
        uncertainty = None
        if parts[0].direct_xy is not None:
            direct = np.concatenate([part.direct_xy for part in parts if part.direct_xy is not None])
            mirrored = np.concatenate([part.mirrored_xy for part in parts if part.mirrored_xy is not None])
            apart = transform_points(back, direct) - transform_points(back, mirrored)
            uncertainty = np.linalg.norm(apart, axis=-1).astype(np.float32)
        return Poses(
            keypoints_xy=transform_points(back, np.concatenate([part.xy for part in parts])),
            keypoint_scores=scores,
            scores=(crops.scores * scores.mean(axis=1)).astype(np.float32),
            boxes_xyxy=crops.boxes_xyxy,
            box_scores=crops.scores,
            uncertainty_px=uncertainty,
        )

    def heatmaps(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Heatmaps of uint8 crops (N, H, W, 3): those of the crops and, with the flip test, those of their mirror
        images turned back, both (N, 17, H/4, W/4) on the device."""
        rows = pixels.to(self.device, non_blocking=True).flatten(2).float()
        rows = torch.addcmul(self._offset, rows, self._gain).to(self.dtype)
        inputs = rows.view(pixels.shape).permute(0, 3, 1, 2)  # channels last in memory
        if not self.flip:
            return self.model(inputs), None
        both = self.model(torch.cat([inputs, inputs.flip(-1)]))
        direct, mirrored = both.chunk(2)
        return direct, mirror_maps(mirrored)

    def tables(self, pixels: Tensor) -> Tensor:
        """Keypoints in crop pixels and scores of uint8 crops (N, H, W, 3): (N, G, 17, 3) float32 on the device, where
        G is 1, or with the flip test 3: of the mean of the crop's and its mirror image's maps, of the crop's alone, and
        of the mirror image's."""
        maps, mirrored = self.heatmaps(pixels)
        groups = [maps] if mirrored is None else [(maps + mirrored) / 2, maps, mirrored]
        xy, scores = decode(torch.cat(groups), self.decoding)
        table = torch.cat([xy, scores[..., None]], dim=-1).float()
        return table.view(len(groups), len(maps), *table.shape[1:]).transpose(0, 1)

    @property
    def number_format(self) -> str:
        """``float32``, ``bfloat16``, ``float16`` or ``int8``."""
        return "int8" if isinstance(self.model, Int8Network) else str(self.dtype).removeprefix("torch.")

    @torch.inference_mode()
    def _estimate(self, pixels: Picture) -> _Decoded:
        on_device = (pixels if isinstance(pixels, Tensor) else torch.from_numpy(pixels)).to(self.device)
        table = self._tables(on_device.permute(0, 3, 1, 2)).cpu().numpy()  # one transfer back
        direct_xy, mirrored_xy = (table[:, 1, :, :2], table[:, 2, :, :2]) if self.flip else (None, None)
        return _Decoded(table[:, 0, :, :2], table[:, 0, :, 2], mirrored_xy, direct_xy)


class _Tables(nn.Module):
    """:meth:`PoseNetwork.tables` of crops (N, 3, H, W), uint8 and channels last in memory."""

    def __init__(self, network: PoseNetwork) -> None:
        super().__init__()
        self._of = network.tables

    def forward(self, pixels: Tensor) -> Tensor:
        return self._of(pixels.permute(0, 2, 3, 1))


def load_pose_network(
    weights: str | Path = "default",
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    flip: bool = False,
    fast: bool = False,
    batch: int | None = None,
    decoding: Decoding | None = None,
) -> PoseNetwork:
    """Load a CPN for inference.

    Args:
        weights: a name of the manifest or a weights file.
        device: see :func:`~cpnpose.pipeline.device.choose_device`.
        precision: see :func:`~cpnpose.pipeline.device.choose_precision`; without effect on int8 weights, which
            :func:`~cpnpose.pipeline.device.check_precision` tells.
        flip: with the flip test.
        fast: GlobalNet's finest map alone.
        batch: most crops in one go; None leaves the choice to the device.
        decoding: of heatmaps; None takes the one that the weights name.

    Raises:
        WeightsError: no such weights, or they are damaged.
        OptionError: no such device or precision, or one that int8 weights do not have; or these need OpenVINO.
    """
    chosen = choose_device(device)
    path = find_weights(weights)
    metadata = read_metadata(path)
    model: nn.Module
    if metadata.architecture == INT8:
        if fast:
            raise OptionError(f"--fast: {path.name} is int8 and holds the whole network only; choose other weights")
        need_cpu(path, device)
        chosen, model = torch.device("cpu"), load_int8(path)
    else:
        model = fuse(load_cpn(path)[0], fast)
    network = PoseNetwork(
        model,
        input_size=metadata.input_size,
        preprocessing=metadata.preprocessing,
        decoding=decoding or metadata.decoding,
        device=chosen,
        dtype=torch.float32 if isinstance(model, Int8Network) else choose_precision(precision, chosen),
        flip=flip,
        batch=batch,
    )
    network.metadata = metadata
    return network
