"""The text files of an exported folder: the header, an example that checks itself, and how to build it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from luthier.deploy.embedded.manifest import Manifest, PortDescription
from luthier.engine.static import MISALIGNED, NO_MATRIX_UNIT, TOO_SMALL


def header(manifest: Manifest) -> str:
    """NAME.h: sizes, shapes, scales and the functions."""
    name, upper = manifest.name, manifest.name.upper()
    arrays = ", ".join(
        f"{'const ' if port in manifest.inputs else ''}float *{port.name}"
        for port in (*manifest.inputs, *manifest.outputs)
    )
    lines = [
        f"/* {manifest.network} for {manifest.target} ({manifest.triple}) in {manifest.precision}, made by Luthier "
        f"{manifest.version}.",
        f" * Weights: {manifest.weights}.  manifest.json says more; {manifest.object} holds code and weights. */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        "#include <stddef.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* Memory that the caller gives to a run.  Nothing in it outlives the run. */",
        f"#define {upper}_ARENA_BYTES {manifest.arena_bytes}",
        f"#define {upper}_ARENA_ALIGNMENT {manifest.arena_alignment}",
        "/* Calls that may share a run, see below. */",
        f"#define {upper}_WORKERS {manifest.workers}",
        "",
    ]
    for port in (*manifest.inputs, *manifest.outputs):
        lines += _port_lines(upper, port)
    if manifest.mean is not None and manifest.std is not None:
        lines += [
            "/* input = (pixel / 255 - mean) / std, channel by channel */",
            f"#define {upper}_INPUT_MEAN {_braces(manifest.mean)}",
            f"#define {upper}_INPUT_STD {_braces(manifest.std)}",
            "",
        ]
    lines += [
        f"/* What {name}_init returns: 0, or */",
        f"#define {upper}_MISALIGNED {MISALIGNED} /* the arena does not begin at a multiple of its alignment */",
        f"#define {upper}_TOO_SMALL {TOO_SMALL} /* it has less than {upper}_ARENA_BYTES */",
        f"#define {upper}_NO_MATRIX_UNIT {NO_MATRIX_UNIT} /* the system does not let this process use AMX */",
        "",
        "/* Check an arena, once; every thread that runs the network needs one of its own. */",
        f"int {name}_init(void *arena, size_t bytes);",
        "",
        "/* One run.  Re-entrant: nothing but the arena and the outputs is written, nothing is allocated. */",
        f"void {name}_run(void *arena, {arrays});",
        "",
    ]
    if manifest.workers > 1:
        lines += [
            "/* One run, shared.  For every step with more than one task, `parallel` is called.  It must call",
            " * part(step, begin, end, worker) for ranges that together are 0 .. tasks - 1, each task once, with",
            f" * worker < {upper}_WORKERS; calls of one worker never overlap, those of different ones may.  It",
            " * returns when all of them have returned. */",
            f"typedef void (*{name}_part_fn)(const void *step, size_t begin, size_t end, size_t worker);",
            f"typedef void (*{name}_parallel_fn)(void *user, {name}_part_fn part, const void *step, size_t tasks);",
            f"void {name}_run_parallel(void *arena, {arrays}, {name}_parallel_fn parallel, void *user);",
            "",
        ]
    return "\n".join([*lines, "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""])


def _port_lines(upper: str, port: PortDescription) -> list[str]:
    macro = f"{upper}_{port.name.upper()}"
    found = [
        f"#define {macro}_SHAPE {_braces(port.shape)} /* {', '.join(port.axes)} */",
        f"#define {macro}_ELEMENTS {prod(port.shape)}",
    ]
    if port.scale is not None:
        found += [
            "/* inside, real = scale * (q - zero_point), q in 0 .. 255 */",
            f"#define {macro}_SCALE {_number(port.scale)}",
            f"#define {macro}_ZERO_POINT {port.zero_point}",
        ]
    return [*found, ""]


def _braces(values: Sequence[float]) -> str:
    return "{" + ", ".join(str(v) if isinstance(v, int) else _number(v) for v in values) + "}"


def _number(value: float) -> str:
    text = f"{value:.9g}"
    return f"{text}f" if any(mark in text for mark in ".en") else f"{text}.0f"


_EXAMPLE = """\
/* Runs the network on the sample that came with it and compares: prints the largest difference.
 * Returns 0 where it is within the tolerance of manifest.json.  Files are looked for where the program is started. */
#include <stdio.h>

#include "@name@.h"

@arrays@
static _Alignas(@NAME@_ARENA_ALIGNMENT) unsigned char arena[@NAME@_ARENA_BYTES];

static int fill(const char *path, float *array, size_t elements)
{
    FILE *file = fopen(path, "rb");
    size_t got = file ? fread(array, sizeof(float), elements, file) : 0;
    if (file)
        fclose(file);
    if (got != elements)
        printf("%s: cannot be read\\n", path);
    return got == elements;
}

static float difference(const float *a, const float *b, size_t elements)
{
    float most = 0.0f;
    for (size_t i = 0; i < elements; i++) {
        float by = a[i] < b[i] ? b[i] - a[i] : a[i] - b[i];
        if (!(by <= most)) /* NaN too */
            most = by;
    }
    return most;
}

int main(void)
{
    int wrong = @name@_init(arena, sizeof arena);
    if (wrong) {
        printf("@name@_init: %d\\n", wrong);
        return 2;
    }
    if (@fills@)
        return 2;
    @name@_run(arena, @names@);
    float most = 0.0f, one;
@compares@
    printf("max_abs_difference %g, tolerance %g\\n", (double)most, @tolerance@);
    return most <= @tolerance@f ? 0 : 1;
}
"""


def example(manifest: Manifest) -> str:
    """example.c: one run, checked."""
    upper = manifest.name.upper()
    ports, outputs = (*manifest.inputs, *manifest.outputs), manifest.outputs
    arrays = [f"static float {port.name}[{upper}_{port.name.upper()}_ELEMENTS];" for port in ports]
    arrays += [f"static float expected_{port.name}[{upper}_{port.name.upper()}_ELEMENTS];" for port in outputs]
    targets = [(port, port.name) for port in manifest.inputs] + [(port, f"expected_{port.name}") for port in outputs]
    fills = [f'!fill("{port.sample}", {array}, {upper}_{port.name.upper()}_ELEMENTS)' for port, array in targets]
    compares = [
        f"    one = difference({port.name}, expected_{port.name}, {upper}_{port.name.upper()}_ELEMENTS);\n"
        "    if (!(one <= most))\n        most = one;"
        for port in outputs
    ]
    words = {
        "name": manifest.name, "NAME": upper, "arrays": "\n".join(arrays), "fills": " || ".join(fills),
        "names": ", ".join(port.name for port in ports), "compares": "\n".join(compares),
        "tolerance": _number(manifest.tolerance)[:-1],
    }  # fmt: skip
    return _filled(_EXAMPLE, words)


_CMAKE = """\
# cmake -B build && cmake --build build && build/example
cmake_minimum_required(VERSION 3.16)
project(@name@ C)
set(CMAKE_C_STANDARD 11)

add_library(@name@ STATIC @object@)
set_target_properties(@name@ PROPERTIES LINKER_LANGUAGE C)
target_include_directories(@name@ INTERFACE ${CMAKE_CURRENT_SOURCE_DIR})

add_executable(example example.c@sources@)
target_link_libraries(example PRIVATE @name@)
@flags@"""
_CORTEX_M = """\

# For Arm's mps2-an500 board, as QEMU has it: files and the console through semihosting.
#   cmake -B build -DCMAKE_SYSTEM_NAME=Generic -DCMAKE_C_COMPILER=arm-none-eabi-gcc \\
#         -DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY && cmake --build build
#   qemu-system-arm -M mps2-an500 -nographic -semihosting -kernel build/example
set(CPU -mcpu=@cpu@ -mthumb -mfloat-abi=hard)
set(BOARD --specs=rdimon.specs -Wl,--no-warn-execstack -T ${CMAKE_CURRENT_SOURCE_DIR}/board.ld)
target_compile_options(example PRIVATE ${CPU} -O2)
target_link_options(example PRIVATE ${CPU} ${BOARD})
"""


def cmake(manifest: Manifest) -> str:
    """CMakeLists.txt: the static library and the example."""
    bare = manifest.triple.startswith("thumb")
    words = {
        "name": manifest.name, "object": manifest.object, "sources": " board.c" if bare else "",
        "flags": _filled(_CORTEX_M, {"cpu": manifest.cpu}) if bare else "",
    }  # fmt: skip
    return _filled(_CMAKE, words)


#: what a Cortex-M needs before main: where the stack begins, where to start, the floating-point unit
BOARD_C = """\
/* The start of a program on a bare Cortex-M: the table of vectors, and the floating-point unit switched on. */
#include <stdint.h>

extern uint32_t board_stack_top;
void _start(void);

static void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
    __asm__ volatile("dsb\\n isb");
    _start();
}

static void stop(void)
{
    for (;;)
        __asm__ volatile("bkpt 0");
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)&board_stack_top, (uintptr_t)reset, (uintptr_t)stop, (uintptr_t)stop,
    (uintptr_t)stop, (uintptr_t)stop, (uintptr_t)stop,
};
"""
BOARD_LD = """\
/* mps2-an500: 4 MiB of code memory at 0, 4 MiB of data memory; give your own device's sizes here. */
MEMORY
{
    FLASH (rx) : ORIGIN = 0x00000000, LENGTH = 4M
    RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 4M
}
ENTRY(_start)
SECTIONS
{
    .vectors : { KEEP(*(.vectors)) } > FLASH
    .text : { *(.text*) *(.rodata*) KEEP(*(.init)) KEEP(*(.fini)) . = ALIGN(8); } > FLASH
    .ARM.extab : { *(.ARM.extab*) } > FLASH
    .ARM.exidx : { __exidx_start = .; *(.ARM.exidx*) __exidx_end = .; } > FLASH
    .init_array : { __preinit_array_start = .; KEEP(*(.preinit_array*)) __preinit_array_end = .;
        __init_array_start = .; KEEP(*(.init_array*)) __init_array_end = .;
        __fini_array_start = .; KEEP(*(.fini_array*)) __fini_array_end = .; } > FLASH
    .data : { *(.data*) . = ALIGN(8); } > RAM
    .bss (NOLOAD) : { __bss_start__ = .; *(.bss*) *(COMMON) . = ALIGN(8); __bss_end__ = .; end = .; __end__ = .; } > RAM
    board_stack_top = ORIGIN(RAM) + LENGTH(RAM);
    __stack = board_stack_top;
}
"""

_WASM = """\
// Runs the network on the sample that came with it and compares; in Node, or with fetch in a browser.
//   wasm-ld --no-entry --export=@name@_init --export=@name@_run --export=__heap_base @object@ -o @name@.wasm
//   node example.mjs
import { readFileSync } from "node:fs";

const floats = (path) => {
  const bytes = readFileSync(new URL(path, import.meta.url));
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
};
const { instance } = await WebAssembly.instantiate(readFileSync(new URL("@name@.wasm", import.meta.url)));
const { memory, __heap_base, @name@_init, @name@_run } = instance.exports;

let free = __heap_base.value;
const take = (bytes) => {
  const start = Math.ceil(free / @alignment@) * @alignment@;
  free = start + bytes;
  if (free > memory.buffer.byteLength) memory.grow(Math.ceil((free - memory.buffer.byteLength) / 65536));
  return start;
};
const arena = take(@arena@);
const inputs = @inputs@.map(floats);
const expected = @expected@.map(floats);
const places = [...inputs, ...expected].map((array) => take(array.byteLength));
inputs.forEach((array, i) => new Float32Array(memory.buffer, places[i], array.length).set(array));

const wrong = @name@_init(arena, @arena@);
if (wrong) throw new Error(`@name@_init: ${wrong}`);
@name@_run(arena, ...places);
let most = 0;
expected.forEach((array, i) => {
  const found = new Float32Array(memory.buffer, places[inputs.length + i], array.length);
  array.forEach((value, j) => { const by = Math.abs(value - found[j]); if (!(by <= most)) most = by; });
});
console.log(`max_abs_difference ${most}, tolerance @tolerance@`);
process.exit(most <= @tolerance@ ? 0 : 1);
"""


def wasm_example(manifest: Manifest) -> str:
    """example.mjs: one run, checked."""
    words = {
        "name": manifest.name, "object": manifest.object, "alignment": str(manifest.arena_alignment),
        "arena": str(manifest.arena_bytes), "inputs": str([port.sample for port in manifest.inputs]),
        "expected": str([port.sample for port in manifest.outputs]), "tolerance": f"{manifest.tolerance:.9g}",
    }  # fmt: skip
    return _filled(_WASM, words)


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text
