"""Dense products of bytes on CPUs without vectors of bytes: see `narrow`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier.engine.emit import I32, Index, Value
from luthier.engine.kernels.int8.narrow import FOUR, SUMS4, Finish, dot, quarters
from luthier.engine.kernels.int8.units import UNIT
from luthier.engine.kernels.kernel import Body

if TYPE_CHECKING:
    from luthier.engine.kernels.int8.conv import Convolution8

_UNROLL = 2


def dense_unit(
    kernel: Convolution8, body: Body, source: Value, unit: Index, weight: Value, y: Value, residual: Value | None
) -> None:
    """One unit of one row of `kernel`: four channels after the other, each four over all taps and words.

    Args:
        kernel: of blocks of one row and one unit.
        body: where the code goes.
        source: the row.
        unit: number of the unit, for bias and factors.
        weight: of the unit, [tap][word][16 channels][4 bytes].
        y, residual: of the unit.
    """
    f, finish = body.f, Finish(kernel.result, body)
    bias, scale = body.at("bias", (unit, 4 * UNIT)), body.at("scale", (unit, 4 * UNIT))
    align = 1 if kernel.grouped else FOUR

    def four(channel: Index) -> None:
        at_weight = f.offset(weight, f.mul(channel, 4))
        sums = [f.load(SUMS4, f.offset(bias, f.mul(channel, 4)), align=16)]
        for tap, offset in enumerate(kernel.geometry.taps):
            panel, at_x = f.offset(at_weight, tap * kernel.words * 4 * UNIT), f.offset(source, offset)

            def step(index: Index, sums: list[Value], panel: Value = panel, at_x: Value = at_x) -> list[Value]:
                words, x = f.offset(panel, f.mul(index, 4 * UNIT)), f.offset(at_x, f.mul(index, 4))
                total = sums[0]
                for more in range(_UNROLL if kernel.words % _UNROLL == 0 else 1):
                    right = f.load(SUMS4, words, 4 * UNIT * more, align=16)
                    total = dot(f, body, total, f.load(I32, x, 4 * more, align=align), right)
                return [total]

            sums = f.loop(0, kernel.words, step, sums, step=_UNROLL if kernel.words % _UNROLL == 0 else 1)
        finish.write(sums[0], f.offset(scale, f.mul(channel, 4)), y, residual, channel)

    quarters(f, four)
