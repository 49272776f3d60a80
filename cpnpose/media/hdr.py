"""High dynamic range and wide gamut pixels to 8-bit BT.709, with look-up tables and one matrix.

Sources: ITU-R BT.2100 (PQ and HLG transfer functions), BT.2087 and BT.2407 (BT.2020 to BT.709), BT.1886 (gamma).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cpnpose.pose.types import FloatArray, ImageArray

_LEVELS = 4096
_REFERENCE_WHITE = 203.0
"""Candela per square metre of diffuse white in HDR pictures (ITU-R BT.2408)."""
_KNEE = 0.6
"""Linear light up to here, as a share of the display's white, is left as it is; above, highlights are rolled off."""
_WHITE = 0.8
"""Share of the display's white that diffuse white gets, so that highlights keep some room."""

BT2020_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)
P3_TO_BT709 = np.array(
    [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]], np.float32
)


def pq_to_linear(signal: FloatArray) -> FloatArray:
    """Light relative to diffuse white of a PQ signal in [0, 1] (BT.2100 table 4; 1.0 is 203 cd/m2)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = np.power(np.clip(signal, 0, 1).astype(np.float64), 1 / m2)
    light = np.power(np.maximum(root - c1, 0) / (c2 - c3 * root), 1 / m1)
    return (light * 10000.0 / _REFERENCE_WHITE).astype(np.float32)


def hlg_to_linear(signal: FloatArray) -> FloatArray:
    """Light relative to diffuse white of an HLG signal in [0, 1] (BT.2100 table 5; diffuse white is at signal 0.75).

    The display's system gamma of 1.2 is applied per channel, as for a 1000 cd/m2 display.
    """
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    x = np.clip(signal, 0, 1).astype(np.float64)
    scene = np.where(x <= 0.5, x * x / 3, (np.exp((x - c) / a) + b) / 12)
    return (np.power(scene, 1.2) * 1000.0 / _REFERENCE_WHITE).astype(np.float32)


def gamma_to_linear(signal: FloatArray) -> FloatArray:
    """Light of a standard-range signal in [0, 1] on a display of gamma 2.4 (BT.1886)."""
    return np.power(np.clip(signal, 0, 1), np.float32(2.4)).astype(np.float32)


def roll_off(light: FloatArray) -> FloatArray:
    """Light relative to diffuse white to display light in [0, 1]: straight up to the knee, then ever flatter."""
    x = light * np.float32(_WHITE)
    over = np.maximum(x - _KNEE, 0) / (1 - _KNEE)
    return np.where(x <= _KNEE, x, _KNEE + (1 - _KNEE) * over / (1 + over)).astype(np.float32)


class ToneMapper:
    """Turns 16-bit full-range RGB of one kind of video into 8-bit BT.709 RGB.

    transfer: ``"pq"``, ``"hlg"`` or ``"gamma"`` (standard range, wide gamut). primaries_to_bt709: (3, 3) matrix on
    linear light, or None where the primaries are those of BT.709 already.
    """

    _PEAK = 64.0
    """Brightest light that the output table covers, relative to diffuse white (PQ ends at 49)."""

    def __init__(self, transfer: str, primaries_to_bt709: FloatArray | None) -> None:
        levels = np.linspace(0, 1, _LEVELS, dtype=np.float32)
        decode = {"pq": pq_to_linear, "hlg": hlg_to_linear, "gamma": gamma_to_linear}[transfer]
        self._linear: FloatArray = decode(levels) / np.float32(self._PEAK)
        self._matrix = np.eye(3, dtype=np.float32) if primaries_to_bt709 is None else primaries_to_bt709
        # The output table is indexed by the fourth root of light, which spreads its levels about as the eye does.
        light = np.power(levels, 4) * np.float32(self._PEAK)
        shown = np.clip(light, 0, 1) if transfer == "gamma" else roll_off(light)
        self._display: ImageArray = np.round(np.power(shown, 1 / 2.4) * 255).astype(np.uint8)

    def __call__(self, rgb: npt.NDArray[np.uint16]) -> ImageArray:
        """(H, W, 3) uint16 RGB, full range, in the source's transfer and primaries -> (H, W, 3) uint8 BT.709 RGB."""
        light = np.asarray(cv2.transform(self._linear[rgb >> 4], self._matrix), dtype=np.float32)
        np.maximum(light, 0, out=light)
        cv2.sqrt(light, light)
        cv2.sqrt(light, light)
        np.minimum(light, 1, out=light)
        np.multiply(light, np.float32(_LEVELS - 1), out=light)
        return self._display[np.rint(light, out=light).astype(np.uint16)]
