"""Prefill: a program takes a tile of 128 rows, consecutive positions times the query heads that share a KV head, over all
of its keys. The splits' sums are merged into a total as the walk passes their ends."""
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from rules import BLOCK_KEYS, SPLIT_KEYS, block_rows, inverse, next_max, rescale, weight

TILE_ROWS = tl.constexpr(128)
TILE_WORDS = tl.constexpr(4)  # of a PrefillTile: row, positions, start, pages


@triton.jit
def prefill(tiles, pages, q, keys, values, out, out_f32, heads, kv_heads, page_shift, scale, HEAD_DIM: tl.constexpr):
    gdc_launch_dependents()
    gdc_wait()
    group = heads // kv_heads
    tile = tiles + tl.program_id(0) // kv_heads * TILE_WORDS
    kv_head = tl.program_id(0) % kv_heads
    first_row = tl.load(tile)
    positions = tl.load(tile + 1)
    start = tl.load(tile + 2)
    pages += tl.load(tile + 3)
    last_page = (start + positions - 1) >> page_shift

    row = tl.arange(0, TILE_ROWS)
    dim = tl.arange(0, HEAD_DIM)
    used = row < positions * group
    position = start + row // group
    at = ((first_row + row // group).to(tl.int64) * heads + kv_head * group + row % group)[:, None] * HEAD_DIM + dim
    queries = tl.load(q + at, mask=used[:, None], other=0.0)

    ones = tl.full((BLOCK_KEYS, 16), 1.0, tl.bfloat16)
    running = tl.full((TILE_ROWS,), float("-inf"), tl.float32)
    sums = tl.zeros((TILE_ROWS, 16), tl.float32)
    acc = tl.zeros((TILE_ROWS, HEAD_DIM), tl.float32)
    total_max = tl.full((TILE_ROWS,), float("-inf"), tl.float32)
    total_sum = tl.zeros((TILE_ROWS,), tl.float32)
    total = tl.zeros((TILE_ROWS, HEAD_DIM), tl.float32)

    end = start + positions
    for first in tl.range(0, end, BLOCK_KEYS):
        key = first + tl.arange(0, BLOCK_KEYS)
        rows = block_rows(pages, key, last_page, kv_head, kv_heads, page_shift)[:, None] * HEAD_DIM + dim
        k = tl.load(keys + rows)
        s = tl.dot(queries, tl.trans(k))
        if first + BLOCK_KEYS > start + 1:
            s = tl.where(key <= position[:, None], s, float("-inf"))
        before = running
        running = next_max(before, tl.max(s, 1) * scale)
        w = weight(tl.fma(s, tl.full(s.shape, 1.0, tl.float32) * scale, -running[:, None] + tl.zeros(s.shape, tl.float32)))
        if first + BLOCK_KEYS > start + 1:
            w = tl.where(key <= position[:, None], w, 0.0)
        w = w.to(tl.bfloat16)
        factor = rescale(before, running)[:, None]
        v = tl.load(values + rows)
        sums = tl.dot(w, ones, sums * factor)
        acc = tl.dot(w, v, acc * factor)
        if (first + BLOCK_KEYS) % SPLIT_KEYS == 0 or first + BLOCK_KEYS >= end:
            split_sum = tl.max(sums, 1)
            merged = tl.maximum(total_max, running)
            total_factor = rescale(total_max, merged)
            split_factor = rescale(running, merged)
            # A row that sees no key of the split keeps its total.
            seen = position >= first // SPLIT_KEYS * SPLIT_KEYS
            total_sum = tl.where(seen, tl.fma(split_sum, split_factor, total_sum * total_factor), total_sum)
            total = tl.where(seen[:, None], tl.fma(acc, split_factor[:, None] + tl.zeros_like(acc), total * total_factor[:, None]), total)
            total_max = merged
            running = tl.full((TILE_ROWS,), float("-inf"), tl.float32)
            sums = tl.zeros((TILE_ROWS, 16), tl.float32)
            acc = tl.zeros((TILE_ROWS, HEAD_DIM), tl.float32)

    total = total * inverse(total_sum)[:, None]
    if out_f32 == 0:
        tl.store(out.to(tl.pointer_type(tl.bfloat16)) + at, total.to(tl.bfloat16), mask=used[:, None])
    else:
        tl.store(out.to(tl.pointer_type(tl.float32)) + at, total, mask=used[:, None])
