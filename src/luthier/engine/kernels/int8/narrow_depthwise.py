"""Depthwise convolution on CPUs without vectors of bytes: see `narrow`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import I8, Index, Value, vector
from luthier.engine.kernels.int8.depthwise import Depthwise8
from luthier.engine.kernels.int8.narrow import FOUR, SUMS4, Finish, load_bytes, quarters
from luthier.engine.kernels.int8.reals import Reals
from luthier.engine.kernels.int8.result import Result
from luthier.engine.kernels.int8.units import UNIT, cast, op, units
from luthier.engine.kernels.kernel import Body
from luthier.engine.kernels.window import Window

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class NarrowDepthwise8(Depthwise8):
    """Depthwise convolution without a ring: each output reads its window where it lies, or the border."""

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """None."""
        return 0

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"int8_depthwise_{self.window.title}_{self.result.title}_1x{FOUR}"

    @property
    def weight_bytes(self) -> int:
        """Of one unit."""
        return self.window.kernel[0] * self.window.kernel[1] * UNIT

    def pack(self, weight: Array) -> Array:
        """[unit][ky][kx][16 channels] from int8 (C, 1, K_H, K_W)."""
        padded = np.zeros((units(self.channels) * UNIT, *self.window.kernel), np.int8)
        padded[: self.channels] = weight[:, 0]
        return padded.reshape(-1, UNIT, *self.window.kernel).transpose(0, 2, 3, 1).ravel()

    def emit(self, body: Body) -> None:
        """One task: some rows of a unit of one image."""
        f, window, result = body.f, self.window, self.result
        (in_h, in_w), (out_h, out_w) = window.in_hw, window.out_hw
        ld, finish = units(self.channels) * UNIT, Finish(result, body)

        def work(image: Index, unit: Index, _: int, rows: tuple[Index, Index], __: Value | None) -> None:
            lane = f.mul(unit, UNIT)
            source = body.at("x", (image, in_h * in_w * ld), (lane, 1))
            weight = body.at("weight", (unit, self.weight_bytes))
            bias, scale = body.at("bias", (lane, 4)), body.at("scale", (lane, 4))

            def pixel(oy: Index, ox: Index) -> None:
                at = f.add(f.mul(f.add(f.mul(f.add(f.mul(image, out_h), oy), out_w), ox), ld), lane)
                y = body.at("y", (at, result.item_bytes))
                residual = body.at("residual", (at, result.residual_bytes)) if result.residual else None
                top, left = window.in_row(oy, f), f.sub(f.mul(ox, window.stride[1]), window.pads[1])

                def four(channel: Index) -> None:
                    sums = [f.load(SUMS4, f.offset(bias, f.mul(channel, 4)), align=16)]

                    def row(ky: Index, sums: list[Value]) -> list[Value]:
                        iy = f.add(top, f.mul(ky, window.dilation[0]))
                        line, total = body.at(source, (iy, in_w * ld), (channel, 1)), sums[0]
                        inside = f.both(f.compare("sge", iy, 0), f.compare("slt", iy, in_h))
                        for kx in range(window.kernel[1]):
                            ix = f.add(left, kx * window.dilation[1])
                            within = f.both(f.compare("sge", ix, 0), f.compare("slt", ix, in_w))
                            place = f.select(f.both(inside, within), body.at(line, (ix, ld)), body["border"])
                            tap = f.add(f.mul(f.add(f.mul(ky, window.kernel[1]), kx), UNIT), channel)
                            right = f.load(vector(I8, FOUR), f.offset(weight, tap), align=FOUR)
                            product = op(f, "mul", load_bytes(f, place), cast(f, "sext", right, SUMS4))
                            total = op(f, "add", total, product)
                        return [total]

                    sums = f.loop(0, window.kernel[0], row, sums)
                    finish.write(sums[0], f.offset(scale, f.mul(channel, 4)), y, residual, channel)

                quarters(f, four)

            f.loop(*rows, lambda oy, _: f.loop(0, out_w, lambda ox, _: pixel(oy, ox)))

        self.task(body, work)


def narrow_depthwise8(
    images: int, channels: int, window: Window, result: Result | Reals, least_tasks: int
) -> NarrowDepthwise8:
    """A unit of channels after the other, their rows cut into parts where there are fewer than `least_tasks`."""
    row_tasks = max(1, min(window.out_hw[0], -(-least_tasks // (images * units(channels)))))
    return NarrowDepthwise8(images, channels, window, result, columns=1, block=1, row_tasks=row_tasks)
