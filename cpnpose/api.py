"""The Python interface: a detector and a pose network behind one name."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpnpose.errors import OptionError
from cpnpose.media.video import VideoReader
from cpnpose.models.manifest import file_sha256
from cpnpose.models.weights import find_weights
from cpnpose.pipeline.crop import crop_persons
from cpnpose.pipeline.detect import Detector, PersonDetector, WholeImageDetector
from cpnpose.pipeline.device import check_precision
from cpnpose.pipeline.estimate import PoseNetwork, load_pose_network
from cpnpose.pipeline.load_detector import make_detector, number_formats
from cpnpose.pipeline.options import ModelOptions, StreamOptions
from cpnpose.pipeline.read_ahead import read_ahead
from cpnpose.pipeline.stream import run, run_serial
from cpnpose.pose.types import Detections, Frame, FrameResult, ImageArray, Poses, check_image


class PoseEstimator:
    """Finds people and their 17 keypoints in images and videos.

        from cpnpose import PoseEstimator

        estimator = PoseEstimator()
        for result in estimator.video("in.mp4"):
            print(result.frame.time_s, result.poses.track_ids, result.poses.keypoints_xy)

    Args:
        weights: pose network: a name of the manifest or a weights file.
        options: all the other choices; see :class:`~cpnpose.pipeline.options.ModelOptions`.
        names: file names of the images that will be given, for ``options.boxes``.
        choices: single fields of ``options``, such as ``device="cpu"``, ``flip=True`` or ``detector="none"``.

    Raises:
        WeightsError: weights are missing or damaged.
        OptionError: choices that exclude each other or have no effect, no such device, or no such field.
        InputError: ``options.boxes`` cannot be read.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        options: ModelOptions | None = None,
        names: Sequence[str] | None = None,
        **choices: Any,
    ) -> None:
        if weights is not None:
            choices["weights"] = str(weights)
        try:
            self.options = replace(options or ModelOptions(), **choices)
        except TypeError as error:
            raise OptionError(f"PoseEstimator: {error}; the fields are those of ModelOptions") from error
        self.network: PoseNetwork = load_pose_network(
            self.options.weights,
            device=self.options.device,
            precision=self.options.precision,
            flip=self.options.flip,
            fast=self.options.fast,
            batch=self.options.batch,
        )
        self.detector: Detector = make_detector(self.options, names)
        formats = number_formats(self.network, self.detector)
        self.notes: list[str] = check_precision(self.options.precision, formats)
        """What the user should know of the choices: an option that reaches one of the networks only."""

    def __call__(self, image: ImageArray, boxes: Detections | None = None) -> Poses:
        """The poses of the people in one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: where the people are; None looks for them.

        Returns:
            N poses in image pixels, best box first; N = 0 where nobody was found.

        Raises:
            InputError: the image or the boxes are not such arrays.
        """
        check_image(image)
        found = self.detector([image])[0] if boxes is None else boxes.checked()
        return self.network(crop_persons([image], [found], self.network.input_size, self.network.preprocessing))

    def frames(
        self, frames: Iterable[Frame], options: StreamOptions | None = None, *, serial: bool = False
    ) -> Generator[FrameResult, None, None]:
        """The poses of a stream of frames, in order; see :func:`cpnpose.pipeline.stream.run`.

        Args:
            frames: in order.
            options: see there.
            serial: frame by frame in this thread, for the least delay.

        Raises:
            InputError: a frame's image is no uint8 RGB array (H, W, 3).
        """
        return (run_serial if serial else run)(frames, self.detector, self.network, options)

    def video(
        self,
        source: str | Path,
        options: StreamOptions | None = None,
        *,
        start: float = 0.0,
        end: float | None = None,
        every: int = 1,
    ) -> Generator[FrameResult, None, None]:
        """The poses of a video, frame by frame, in memory that does not grow with its length.

        Args:
            source: a file or address that FFmpeg reads.
            options: tracking, smoothing and more; by default people are tracked and their motion is smoothed.
            start, end: in seconds.
            every: take every N-th frame.

        Raises:
            InputError: there is no video to read.
        """
        with VideoReader(source, start=start, end=end, every=every) as reader, read_ahead(reader) as frames:
            yield from self.frames(frames, options)

    def describe(self) -> dict[str, Any]:
        """What a record says of the networks: plain JSON values."""
        path, metadata = find_weights(self.options.weights), self.network.metadata
        detector: Any = self.options.detector
        if self.options.boxes is not None:
            detector = {
                "name": "boxes of a file",
                "sha256": file_sha256(self.options.boxes) if self.options.boxes.is_file() else None,  # not of a pipe
                "score": self.options.score or 0.0,
                "max_people": self.options.most_people,
            }
        elif isinstance(self.detector, PersonDetector):
            detector = {
                "name": self.detector.name,
                "sha256": None if self.detector.file is None else file_sha256(self.detector.file),
                "precision": self.detector.network.number_format,
                "score": self.detector.score,
                "nms": self.detector.nms,
                "max_people": self.detector.max_people,
            }
            if self.options.detector_size is not None:
                detector["size"] = list(self.options.detector_size)
        elif isinstance(self.detector, WholeImageDetector):
            detector = "none"
        return {
            "weights": metadata.name or path.stem if metadata is not None else path.stem,
            "sha256": file_sha256(path),
            "architecture": metadata.architecture if metadata is not None else "",
            "input_size": list(self.network.input_size),
            "decoding": self.network.decoding,
            "precision": self.network.number_format,
            "flip": self.options.flip,
            "fast": self.options.fast,
            "detector": detector,
        }
