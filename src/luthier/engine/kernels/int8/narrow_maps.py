"""All but products of bytes on CPUs without vectors of bytes: see `narrow`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier.engine.emit import F32, I8, I32, Index, Value
from luthier.engine.kernels.int8.narrow import (
    BYTES4,
    FOUR,
    REALS4,
    SUMS4,
    Finish,
    inverse_of,
    load_bytes,
    quarters,
    store_bytes,
    to_bytes,
)
from luthier.engine.kernels.int8.result import Result
from luthier.engine.kernels.int8.units import UNIT, cast, op, units
from luthier.engine.kernels.kernel import Body
from luthier.engine.kernels.partition import share
from luthier.engine.kernels.pool import cell
from luthier.engine.layout import round_up

if TYPE_CHECKING:
    from luthier.engine.kernels.int8.convert import Convert
    from luthier.engine.kernels.int8.elementwise import Binary8, Unary8
    from luthier.engine.kernels.int8.pool import Pooling8
    from luthier.engine.kernels.int8.quantise import Quantise8


def unary(kernel: Unary8, body: Body) -> None:
    """One task of an activation, or of a byte everywhere."""
    f = body.f
    finish = Finish(Result(kernel.activation), body)
    low, high = share(f, body.task, kernel.parts, kernel.total * (UNIT // FOUR))

    def four(index: Index, _: object) -> None:
        by = f.mul(index, FOUR)
        if kernel.activation == "identity":
            f.store(f.load(BYTES4, body["border"], align=FOUR), body["y"], by, align=FOUR)
        else:
            store_bytes(f, finish.activated(kernel.activation, load_bytes(f, body["x"], by)), body["y"], by)

    f.loop(low, high, four)


def binary(kernel: Binary8, body: Body) -> None:
    """One task of a sum or product of two tensors."""
    f, finish = body.f, Finish(kernel.result, body)
    n, channels, h, w = kernel.shape
    ld, other_ld = units(channels) * UNIT, units(kernel.other[1]) * UNIT
    steps = (kernel.other[2] * kernel.other[3] * other_ld, kernel.other[3] * other_ld, other_ld)
    deep, down, right = (
        0 if size == 1 else step for size, step in zip(kernel.other[::2] + kernel.other[3:], steps, strict=True)
    )
    whole = kernel.other[1] > 1 or channels == 1

    def row(index: Index, _: object) -> None:
        beside = body.at("residual", (f.div(index, h), deep), (f.rem(index, h), down))

        def pixel(ox: Index, _: object) -> None:
            at, other = f.mul(f.add(f.mul(index, w), ox), ld), body.at(beside, (ox, right))

            def four(channel: Index) -> None:
                by = f.add(at, channel)
                if whole:
                    second = load_bytes(f, other, channel)
                else:
                    second = f.splat(f.assign(I32, f"zext {f.load(I8, other, align=1)} to i32"), FOUR)
                a = finish.term(load_bytes(f, body["x"], by), "a", scaled=kernel.kind == "add")
                b = finish.term(second, "b", scaled=kernel.kind == "add")
                total = f.fadd(a, b) if kernel.kind == "add" else f.fmul(f.fmul(a, b), finish.scale("scale_a"))
                store_bytes(f, finish.after(total), body["y"], by)

            quarters(f, four, units(channels))

        f.loop(0, w, pixel)

    f.loop(*share(f, body.task, kernel.parts, n * h), row)


def pooling(kernel: Pooling8, body: Body) -> None:
    """One task of a pool: a block of channels of one image."""
    f, window = body.f, kernel.window
    image, block = f.div(body.task, kernel.blocks.count), f.rem(body.task, kernel.blocks.count)
    ld, item = units(kernel.channels) * UNIT, 4 if kernel.summed else 1
    (in_h, in_w), (out_h, out_w) = window.in_hw, window.out_hw

    def channels(first: Index, count: int) -> None:
        lane = f.mul(first, UNIT)
        x = body.at("x", (image, in_h * in_w * ld * item), (lane, item))
        y = body.at("y", (image, out_h * out_w * ld), (lane, 1))

        def pixel(oy: Index, ox: Index) -> None:
            rows, columns = (cell(window, kernel.adaptive, f, o, axis) for axis, o in enumerate((oy, ox)))
            at = f.add(f.mul(oy, out_w), ox)

            def four(channel: Index) -> None:
                start = Value(SUMS4, "zeroinitializer")
                if kernel.reduce == "avg":
                    start = f.splat(f.load(I32, body.at("start", (at, 4))), FOUR)

                def line(iy: Index, held: list[Value]) -> list[Value]:
                    def column(ix: Index, held: list[Value]) -> list[Value]:
                        place = body.at(x, (f.add(f.mul(iy, in_w), ix), ld * item), (channel, item))
                        loaded = f.load(SUMS4, place, align=16) if kernel.summed else load_bytes(f, place)
                        if kernel.reduce == "max":
                            return [f.call("llvm.smax.v4i32", SUMS4, (held[0], loaded))]
                        return [op(f, "add", held[0], loaded)]

                    return f.loop(*columns, column, held)

                (total,) = f.loop(*rows, line, [start])
                if kernel.reduce == "avg":
                    scale = f.splat(f.load(F32, body.at("scale", (at, 4))), FOUR)
                    zero = f.splat(f.assign(I32, f"and {f.load(I32, body['numbers'])}, 65535"), FOUR)
                    total = to_bytes(f, f.fmul(cast(f, "sitofp", total, REALS4), scale), zero)
                store_bytes(f, total, y, f.add(f.mul(at, ld), channel))

            quarters(f, four, count)

        f.loop(0, out_h, lambda oy, _: f.loop(0, out_w, lambda ox, _: pixel(oy, ox)))

    kernel.blocks.loop(f, channels, block, f.add(block, 1))


def quantise(kernel: Quantise8, body: Body) -> None:
    """One task of making integers from numbers, perhaps times a gate."""
    f, element = body.f, kernel.element
    n, channels, h, w = kernel.shape
    assert kernel.lanes == FOUR
    ld, ld_y = round_up(channels, FOUR), units(channels) * UNIT
    inverse, zero = inverse_of(body)

    def row(index: Index, _: object) -> None:
        def pixel(ox: Index, _: object) -> None:
            at = f.add(f.mul(index, w), ox)

            def four(group: Index, _: object) -> None:
                channel = f.mul(group, FOUR)
                x = body.load(body.at("x", (f.add(f.mul(at, ld), channel), element.bytes)), element=element)
                if kernel.gated:
                    gate = body.at("gate", (f.div(index, h), 4 * ld), (channel, 4))
                    x = f.fmul(x, body.load(gate))
                store_bytes(f, to_bytes(f, f.fmul(x, inverse), zero), body.at("y", (at, ld_y)), channel)

            f.loop(0, ld // FOUR, four)

        f.loop(0, w, pixel)

    f.loop(*share(f, body.task, kernel.parts, n * h), row)


def convert(kernel: Convert, body: Body) -> None:
    """One task of making integers from a caller's numbers, or back, one by one."""
    f = body.f
    n, c, h, w = kernel.shape
    scale = f.splat(f.load(F32, body["levels"]), FOUR)
    zero = f.splat(f.load(I32, body["levels"], 4), FOUR)

    def row(index: Index, _: object) -> None:
        image, down = f.div(index, h), f.rem(index, h)

        def pixel(ox: Index, _: object) -> None:
            def channel(number: Index, _: object) -> None:
                real = body.at(
                    "real", (image, 4 * kernel.real[0]), (down, 4 * kernel.real[2]), (ox, 4 * kernel.real[3]),
                    (number, 4 * kernel.real[1]),
                )  # fmt: skip
                integer = body.at(
                    f.offset(body["integer"], kernel.start), (image, kernel.integer[0]), (down, kernel.integer[2]),
                    (ox, kernel.integer[3]), (number, 1),
                )  # fmt: skip
                if kernel.back:
                    q = f.splat(f.assign(I32, f"zext {f.load(I8, integer, align=1)} to i32"), FOUR)
                    x = f.fmul(cast(f, "sitofp", op(f, "sub", q, zero), REALS4), scale)
                    f.store(f.assign(F32, f"extractelement {x}, i32 0"), real)
                    return
                found = to_bytes(f, f.fdiv(f.splat(f.load(F32, real), FOUR), scale), zero)
                byte = f.assign(I8, f"extractelement {cast(f, 'trunc', found, BYTES4)}, i32 0")
                f.store(byte, integer, align=1)

            f.loop(0, c, channel)

        f.loop(0, w, pixel)

    f.loop(*share(f, body.task, kernel.parts, n * h), row)
