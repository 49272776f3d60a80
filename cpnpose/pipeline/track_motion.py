"""Where the box of a person will be: one small Kalman filter per person and box value, in seconds.

Each of centre x, centre y, width and height has a position and a velocity. The velocity is an Ornstein-Uhlenbeck
process (as Singer's model for acceleration in "Estimating optimal tracking filter performance for manned maneuvering
targets", 1970): it fades with the time constant ``tau`` and its spread stays bounded, so a person who is not seen for a
second is expected further along the path, and no box flies away. Every step takes the real time that passed, so the
frame rate, constant or not, does not matter. All spreads are shares of the person's size (longer side of the box).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cpnpose.pose.types import FloatArray

Array = npt.NDArray[np.float64]

# The four columns are centre x, centre y, width, height.
VELOCITY_TAU_S = np.array([2.0, 2.0, 0.5, 0.5])
VELOCITY_SPREAD = np.array([1.0, 1.0, 0.25, 0.25])
"""Standard deviation of the velocity, in sizes per second: a walker makes about 0.8, a runner 2 to 3."""
MEASUREMENT_SPREAD = np.array([0.035, 0.035, 0.05, 0.05])
"""Standard deviation of a detected box, in sizes."""
LOWEST_SIZE_PX = 4.0
_TAU_SQUARE = np.square(VELOCITY_TAU_S)


def boxes_to_centres(boxes_xyxy: npt.ArrayLike) -> Array:
    """(N, 4) corners to (N, 4) centre x, centre y, width, height; pixels."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, size], axis=1)


def box_size(boxes_xyxy: npt.ArrayLike) -> Array:
    """The longer side of each box: (N, 4) pixels to (N,) pixels."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    longest: Array = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), LOWEST_SIZE_PX)
    return longest


class BoxMotion:
    """A bank of filters, one row per person. Rows are added at the end and removed with :meth:`keep`."""

    def __init__(self) -> None:
        self.position: Array = np.zeros((0, 4))
        self.velocity: Array = np.zeros((0, 4))
        self._position_var: Array = np.zeros((0, 4))
        self._cross_var: Array = np.zeros((0, 4))
        self._velocity_var: Array = np.zeros((0, 4))
        self.size: Array = np.zeros((0,))
        """(T,) pixels: the person's size, by which all spreads are scaled."""

    def __len__(self) -> int:
        return len(self.position)

    def add(self, boxes_xyxy: FloatArray) -> None:
        """New people at rest, whose velocity is unknown. boxes_xyxy (N, 4) pixels."""
        measured = boxes_to_centres(boxes_xyxy)
        size = box_size(boxes_xyxy)
        self.position = np.concatenate([self.position, measured])
        self.velocity = np.concatenate([self.velocity, np.zeros_like(measured)])
        self._position_var = np.concatenate([self._position_var, np.square(size[:, None] * MEASUREMENT_SPREAD)])
        self._cross_var = np.concatenate([self._cross_var, np.zeros_like(measured)])
        self._velocity_var = np.concatenate([self._velocity_var, np.square(size[:, None] * VELOCITY_SPREAD)])
        self.size = np.concatenate([self.size, size])

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """Forget the people whose entry in the mask ``rows`` (T,) is False."""
        for name, value in list(vars(self).items()):
            setattr(self, name, value[rows])

    def predict(self, elapsed_s: float) -> None:
        """Move everybody on by ``elapsed_s`` seconds (exact discretisation of the process, any step length)."""
        if elapsed_s <= 0 or not len(self):
            return
        step = elapsed_s / VELOCITY_TAU_S
        fade = np.exp(-step)
        faded, fade_square = 1.0 - fade, np.square(fade)
        reach = VELOCITY_TAU_S * faded
        spread = np.square(self.size[:, None] * VELOCITY_SPREAD)
        noise_pp = spread * _TAU_SQUARE * np.maximum(2.0 * step - 3.0 + 4.0 * fade - fade_square, 0.0)
        noise_pv = spread * VELOCITY_TAU_S * np.square(faded)
        noise_vv = spread * (1.0 - fade_square)
        self.position = self.position + reach * self.velocity
        self.velocity = fade * self.velocity
        pp, pv, vv = self._position_var, self._cross_var, self._velocity_var
        self._position_var = pp + 2.0 * reach * pv + np.square(reach) * vv + noise_pp
        self._cross_var = fade * (pv + reach * vv) + noise_pv
        self._velocity_var = fade_square * vv + noise_vv
        self.position[:, 2:] = np.maximum(self.position[:, 2:], 0.1 * self.size[:, None])

    def update(self, rows: npt.NDArray[np.int64], boxes_xyxy: FloatArray, trust: Array) -> None:
        """Correct the people ``rows`` (M,) by their boxes (M, 4) in pixels. ``trust`` (M,) in (0, 1]: below 1 the box
        is believed less (a weak detection)."""
        if not len(rows):
            return
        measured = boxes_to_centres(boxes_xyxy)
        noise = np.square(self.size[rows, None] * MEASUREMENT_SPREAD / trust[:, None])
        pp, pv, vv = self._position_var[rows], self._cross_var[rows], self._velocity_var[rows]
        total = pp + noise
        gain_p, gain_v = pp / total, pv / total
        surprise = measured - self.position[rows]
        self.position[rows] += gain_p * surprise
        self.velocity[rows] += gain_v * surprise
        kept = 1.0 - gain_p
        self._position_var[rows] = kept * pp
        self._cross_var[rows] = kept * pv
        self._velocity_var[rows] = vv - gain_v * pv
        self.size[rows] += 0.2 * trust * (box_size(boxes_xyxy) - self.size[rows])

    def boxes(self, frame_size: tuple[int, int] | None = None) -> Array:
        """The expected boxes, (T, 4) xyxy in pixels, cut to the frame (height, width) as a detector's boxes are. A box
        that has left the frame becomes a strip at the edge where it left."""
        half = self.position[:, 2:] / 2
        corners = np.concatenate([self.position[:, :2] - half, self.position[:, :2] + half], axis=1)
        if frame_size is not None:
            height, width = frame_size
            corners = np.minimum(np.maximum(corners, 0.0), (width, height, width, height))
        return corners

    def distance(self, expected_xy: Array, found_xy: Array, reach: float) -> Array:
        """Squared distance of each person's expected centre from each box's, in units of the expected error.

        Args:
            expected_xy: (T, 2) pixels: centres of the expected boxes, cut to the frame (see :meth:`boxes`).
            found_xy: (N, 2) pixels: centres of the boxes.
            reach: bound of the expected error, in sizes: somebody lost for long may not be anywhere.

        Returns:
            (T, N) float64.
        """
        noise = np.square(self.size[:, None] * MEASUREMENT_SPREAD[:2])
        variance = np.minimum(self._position_var[:, :2] + noise, np.square(reach * self.size)[:, None])
        total: Array = (np.square(found_xy[None] - expected_xy[:, None]) / variance[:, None]).sum(axis=-1)
        return total
