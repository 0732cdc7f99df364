#!/usr/bin/env python3
"""Compiles the Triton kernels of cuda/attention/triton into the cubins and the manifest in its folder kernels. On a
machine of any kind, as no GPU is asked:
  python3 -m venv build/triton && build/triton/bin/pip install triton==3.8.0
  build/triton/bin/python scripts/compile-triton.py
What it writes is committed, so that nothing else needs Python: `npm test` fails when it does not fit the sources."""
import hashlib
import json
import os
import re
import sys
from pathlib import Path

os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # before Triton looks

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "cuda" / "attention" / "triton"
OUTPUT = SOURCES / "kernels"
VERSION = "3.8.0"
TARGET = GPUTarget("cuda", 90, 32)
# A product and a sum are contracted only where the sources say fma.
OPTIONS = {"enable_fp_fusion": False, "launch_pdl": True}
HEAD_DIMS = (64, 128)

sys.path.insert(0, str(SOURCES))
sys.dont_write_bytecode = True
from blocks import BOX_COLUMNS, BOX_ROWS, SWIZZLED
from decode import decode
from prefill import prefill

POOL = f"tensordesc<bf16[{BOX_ROWS.value},{BOX_COLUMNS.value}],{SWIZZLED.value!r}>"
OUT = {"out": "*bf16", "out_f32": "i32"}
SHAPE = {"heads": "i32", "kv_heads": "i32", "page_shift": "i32", "scale": "fp32"}
PREFILL = {"tiles": "*i32", "pages": "*i32", "q": "*bf16", "keys": POOL, "values": POOL, **OUT, **SHAPE}
PARTIAL = {"partial_rules": "*fp32", "partial_sums": "*fp32", "counters": "*i32", "queue": "*i32"}
DECODE = {"plan": "*i32", "split_words": "i32", "q": "*bf16", "keys": POOL, "values": POOL, **OUT, **PARTIAL, **SHAPE}
# What a compiled kernel takes for a descriptor of a matrix, and types as PTX has them.
DESCRIPTOR = {"": "tensormap", "_rows": "i32", "_columns": "i32", "_row_stride": "i64", "_column_stride": "i64"}
PTX_TYPES = {"i32": "u32", "i64": "u64", "fp32": "f32", "tensormap": "b8"}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def compile_kernel(function, arguments, constants, options):
    """@returns the cubin and the kernel's part of the manifest"""
    source = GluonASTSource if function.is_gluon() else ASTSource
    signature = {**arguments, **{name: "constexpr" for name in constants}}
    # Every pointer comes from cudaMalloc, or lies a multiple of 16 bytes behind one that does.
    aligned = {(i,): [["tt.divisibility", 16]] for i, type in enumerate(arguments.values()) if type.startswith("*")}
    options = {**OPTIONS, **options}
    kernel = triton.compile(source(function, signature, constants, aligned), target=TARGET, options=options)
    metadata, ptx = kernel.metadata, kernel.asm["ptx"]
    if metadata.global_scratch_size or metadata.profile_scratch_size:
        raise SystemExit(f"{metadata.name} needs scratch memory, which the launcher does not give it")
    passed = {}
    for name, type in arguments.items():
        passed.update({name + part: t for part, t in DESCRIPTOR.items()} if type == POOL else {name: type})
    passed.update({"global_scratch": "*i8", "profile_scratch": "*i8"})
    parameters = re.findall(r"\.param (?:\.align \d+ )?\.(\w+) ", ptx[: ptx.index("\n{")])
    expected = ["u64" if type[0] == "*" else PTX_TYPES[type] for type in passed.values()]
    if parameters != expected:
        raise SystemExit(f"{metadata.name} takes {parameters}, not {expected}")
    return kernel.asm["cubin"], {
        "function": metadata.name,
        "constants": constants,
        "numWarps": metadata.num_warps,
        "sharedBytes": metadata.shared,
        "arguments": passed,
    }


def main():
    if triton.__version__ != VERSION:
        raise SystemExit(f"Triton {triton.__version__} is installed, but the kernels are compiled with {VERSION}")
    OUTPUT.mkdir(exist_ok=True)
    for stale in OUTPUT.glob("*.cubin"):
        stale.unlink()
    kernels = {}
    for dim in HEAD_DIMS:
        for name, function, arguments, constants, options in (
            (f"prefill_{dim}", prefill, PREFILL, {"HEAD_DIM": dim}, {"num_warps": 4}),
            # A ring of 128 KB. 16 warps' registers, which the partitions share out anew.
            (f"decode_{dim}", decode, DECODE, {"WARPS": 8, "STAGES": 512 // dim, "HEAD_DIM": dim},
             {"num_warps": 8, "maxnreg": 128}),
        ):
            cubin, entry = compile_kernel(function, arguments, constants, options)
            (OUTPUT / f"{name}.cubin").write_bytes(cubin)
            kernels[name] = {**entry, "cubinBytes": len(cubin), "cubinSha256": sha256(cubin)}
            print(f"{name}: {len(cubin)} bytes, {entry['sharedBytes']} bytes of shared memory")
    sources = [*sorted(SOURCES.glob("*.py")), Path(__file__).resolve()]
    manifest = {
        "triton": VERSION,
        "target": f"sm_{TARGET.arch}a",
        "sources": {str(path.relative_to(ROOT)): sha256(path.read_bytes()) for path in sources},
        "kernels": kernels,
    }
    (OUTPUT / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


main()
