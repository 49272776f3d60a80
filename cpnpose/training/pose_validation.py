"""Evaluation in the course of a pose training run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cpnpose.evaluate import coco_results, keypoint_metrics, person_crops
from cpnpose.evaluate_keypoints import complete_annotations
from cpnpose.models.fuse import fuse
from cpnpose.pipeline.estimate import PoseNetwork
from cpnpose.pose.types import PersonCrops, Poses, Preprocessing
from cpnpose.training.annotations import read_people
from cpnpose.training.pose_options import PoseTraining, preprocessing_of
from cpnpose.training.pose_run import PoseRun, use_bf16
from cpnpose.whole_file import whole_file


class PoseValidation:
    """Evaluation by ground-truth boxes with flip test, on crops that are cut once.

    Raises:
        InputError: the annotations lack something that the evaluation needs, or an image cannot be read.
    """

    def __init__(self, options: PoseTraining, preprocessing: Preprocessing) -> None:
        assert options.val is not None
        self.annotations = options.val
        complete_annotations(self.annotations)  # what it lacks is told now, not at the first evaluation
        self.records = read_people([options.val], options.data)
        self.crops: PersonCrops = person_crops(self.records, options.size, preprocessing)

    def evaluate(self, state: PoseRun) -> dict[str, float]:
        """Metrics of the averaged weights; also draws the picture."""
        options, device = state.options, state.processes.device
        network = PoseNetwork(
            fuse(state.ema.model),
            input_size=options.size,
            preprocessing=preprocessing_of(options.model),
            decoding="published" if options.recipe == "paper" else "dark",
            device=device,
            dtype=torch.bfloat16 if use_bf16(options.precision, device) else torch.float32,
            flip=True,
        )
        poses: Poses = network(self.crops)
        metrics = keypoint_metrics(self.annotations, coco_results(poses, self.records.image_ids))
        _draw_people(options.out / "people.png", self.crops, poses, self.records.keypoints)
        return {name: metrics[name] for name in ("AP", "AP50", "AP75", "APm", "APl", "AR")}


def _draw_people(path: Path, crops: PersonCrops, poses: Poses, truth: np.ndarray) -> None:
    from cpnpose.training.picture import people_picture

    with whole_file(path) as part:
        people_picture(part, crops, poses, truth)
