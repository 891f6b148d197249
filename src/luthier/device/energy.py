"""Energy of arithmetic and of memory, as a table of published figures and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, log

from luthier.arch.block import BITS, NumberType, Precision
from luthier.device.figure import Figure


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """Energy of arithmetic and of memory.

    Attributes:
        name: of the table.
        remark: what a reader must know before using it, such as the process node.
        add_j, multiply_j: of one operation, by number type (`int32` is the integer accumulator) or, for a device with
            a mixed unit, by label (`W8A16`).
        sram_j_per_byte: by the memory's size in bytes.
        dram_j_per_byte: of memory off the chip.
    """

    name: str
    add_j: Mapping[str, Figure]
    multiply_j: Mapping[str, Figure]
    sram_j_per_byte: Mapping[int, Figure] = field(default_factory=dict)
    dram_j_per_byte: Figure | None = None
    remark: str = ""

    def mac(self, precision: Precision) -> Figure | None:
        """Energy of one multiply-accumulate, in J; None where the table lacks one of its two parts.

            E_mac = E_multiply(unit) + E_add(accumulator)                                            (1)

        The unit is the device's own for a mixed pair (`W8A16`) if the table has one, else the multiplier of the wider
        operand.  Integers accumulate in int32, fp16 in fp16, bf16 and fp32 in fp32.

        Example:
            >>> pj = lambda value: Figure(value * 1e-12, "an example")
            >>> table = EnergyTable("t", add_j={"int32": pj(0.1)}, multiply_j={"int8": pj(0.2)})
            >>> f"{table.mac(Precision.parse('int8')).value:.1e}", table.mac(Precision.parse("bf16"))
            ('3.0e-13', None)
        """
        wider = multiplier(precision)
        unit = precision.label if precision.label in self.multiply_j else wider
        sums = accumulator(wider)
        product, total = self.multiply_j.get(unit), self.add_j.get(sums)
        if product is None or total is None:
            return None
        return Figure(product.value + total.value, f"{self.name}: {unit} multiply + {sums} add", kind="derived")

    def sram(self, size_bytes: float) -> Figure | None:
        """Energy per byte of an on-chip memory of this size; None for a table without memories.

        Between two sizes of the table the logarithm of the energy is linear in the logarithm of the size; beyond its
        ends the nearest figure holds, and the source says so.

            log E = log E_0 + (log E_1 - log E_0) * (log size - log size_0) / (log size_1 - log size_0)     (2)

        Example:
            >>> table = EnergyTable("t", {}, {}, {1024: Figure(1e-12, "a"), 4096: Figure(4e-12, "b")})
            >>> f"{table.sram(2048).value:.1e}", table.sram(64).source
            ('2.0e-12', 't: 64 B is below its smallest memory, 1024 B, whose figure is taken')
        """
        if not self.sram_j_per_byte:
            return None
        sizes = sorted(self.sram_j_per_byte)
        inside = min(max(size_bytes, sizes[0]), sizes[-1])
        if inside != size_bytes:
            side = "below its smallest" if size_bytes < inside else "above its largest"
            source = f"{self.name}: {size_bytes:.0f} B is {side} memory, {inside:.0f} B, whose figure is taken"
            return Figure(self.sram_j_per_byte[int(inside)].value, source, kind="derived")
        if inside in self.sram_j_per_byte:
            return self.sram_j_per_byte[int(inside)]
        low, high = next((a, b) for a, b in pairwise(sizes) if a < inside < b)
        part = log(inside / low) / log(high / low)
        start, end = log(self.sram_j_per_byte[low].value), log(self.sram_j_per_byte[high].value)
        source = f"{self.name}: log-log interpolation between {low} B and {high} B"
        return Figure(exp(start + part * (end - start)), source, kind="derived")


def multiplier(precision: Precision) -> NumberType:
    """Number type of the multiplier that a pair of operands needs where there is no mixed unit: the wider one.

    Example:
        >>> multiplier(Precision.parse("W8A16")), multiplier(Precision.parse("W4A8"))
        ('fp16', 'int8')
    """
    pair = (precision.activation, precision.weight)
    return max(pair, key=lambda number: BITS[number])


def accumulator(number: NumberType) -> str:
    """Number type in which products of this type are summed.

    Example:
        >>> [accumulator(number) for number in ("int4", "int8", "fp16", "bf16", "fp32")]
        ['int32', 'int32', 'fp16', 'fp32', 'fp32']
    """
    return {"int4": "int32", "int8": "int32", "fp16": "fp16"}.get(number, "fp32")
