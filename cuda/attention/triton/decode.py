"""Decoding: a program takes one row of a sequence against one split of its keys, for the query heads that share a KV head,
then the next such pair. The program that finishes a sequence's last split merges them all, in order."""
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from rules import BLOCK_KEYS, SPLIT_KEYS, block_rows, inverse, next_max, rescale, weight

ROWS = tl.constexpr(16)  # of a tile: query heads
HEADER_WORDS = tl.constexpr(4)  # of a plan; the first is the number of splits
SPLIT_WORDS = tl.constexpr(8)  # of a DecodeSplit: row, keys, split, splits, partial, counter, 0, 0; its pages follow
MERGED_AT_ONCE = tl.constexpr(8)


@triton.jit
def store_row(out, out_f32, at, o, used):
    """@param out bf16 or, if out_f32, f32"""
    if out_f32 == 0:
        tl.store(out.to(tl.pointer_type(tl.bfloat16)) + at, o.to(tl.bfloat16), mask=used)
    else:
        tl.store(out.to(tl.pointer_type(tl.float32)) + at, o, mask=used)


@triton.jit
def merge(partial_rules, partial_sums, first, splits, heads, HEAD_DIM: tl.constexpr, rows, used):
    """The splits of a sequence from left to right. @param first row of the workspace of the first split's first head"""
    dim = tl.arange(0, HEAD_DIM)
    total_max = tl.full((ROWS,), float("-inf"), tl.float32)
    total_sum = tl.zeros((ROWS,), tl.float32)
    total = tl.zeros((ROWS, HEAD_DIM), tl.float32)
    for base in range(0, splits, MERGED_AT_ONCE):
        for i in tl.static_range(MERGED_AT_ONCE):
            at = first + tl.minimum(base + i, splits - 1).to(tl.int64) * heads + rows
            m = tl.load(partial_rules + 2 * at, mask=used, other=0.0, cache_modifier=".cg")
            l = tl.load(partial_rules + 2 * at + 1, mask=used, other=1.0, cache_modifier=".cg")
            o = tl.load(partial_sums + at[:, None] * HEAD_DIM + dim, mask=used[:, None], other=0.0, cache_modifier=".cg")
            merged = tl.maximum(total_max, m)
            total_factor = rescale(total_max, merged)
            split_factor = rescale(m, merged)
            there = base + i < splits
            total_sum = tl.where(there, tl.fma(l, split_factor, total_sum * total_factor), total_sum)
            total = tl.where(there, tl.fma(o, tl.broadcast_to(split_factor[:, None], o.shape),
                                           total * total_factor[:, None]), total)
            total_max = merged
    return total * inverse(total_sum)[:, None]


@triton.jit
def decode(plan, split_words, q, keys, values, out, out_f32, partial_rules, partial_sums, counters, heads, kv_heads,
           page_shift, scale, HEAD_DIM: tl.constexpr, STAGES: tl.constexpr):
    gdc_launch_dependents()
    gdc_wait()
    group = heads // kv_heads
    rows = tl.arange(0, ROWS)
    dim = tl.arange(0, HEAD_DIM)
    used = rows < group
    ones = tl.full((BLOCK_KEYS, 16), 1.0, tl.bfloat16)
    count = tl.load(plan) * kv_heads
    for pair in tl.range(tl.program_id(0), count, tl.num_programs(0)):
        kv_head = pair % kv_heads
        record = plan + HEADER_WORDS + (pair // kv_heads).to(tl.int64) * split_words
        row = tl.load(record)
        visible = tl.load(record + 1)
        split = tl.load(record + 2)
        splits = tl.load(record + 3)
        partial = tl.load(record + 4)
        counter = tl.load(record + 5)
        pages = record + SPLIT_WORDS
        last_page = (SPLIT_KEYS - 1) >> page_shift
        # Of a page longer than a split the record holds one; where the split begins in it matters then.
        skipped = (split * SPLIT_KEYS) & ((1 << page_shift) - 1)

        head = row.to(tl.int64) * heads + kv_head * group + rows
        at = head[:, None] * HEAD_DIM + dim
        queries = tl.load(q + at, mask=used[:, None], other=0.0)
        running = tl.full((ROWS,), float("-inf"), tl.float32)
        sums = tl.zeros((ROWS, 16), tl.float32)
        acc = tl.zeros((ROWS, HEAD_DIM), tl.float32)
        for first in tl.range(0, visible, BLOCK_KEYS, num_stages=STAGES):
            key = first + tl.arange(0, BLOCK_KEYS)
            key_rows = block_rows(pages, key + skipped, last_page, kv_head, kv_heads, page_shift)[:, None] * HEAD_DIM + dim
            k = tl.load(keys + key_rows)
            v = tl.load(values + key_rows)
            s = tl.dot(queries, tl.trans(k))
            seen = (key < visible)[None, :]
            s = tl.where(seen, s, float("-inf"))
            before = running
            running = next_max(before, tl.max(s, 1) * scale)
            x = tl.fma(s, tl.broadcast_to(scale, s.shape), tl.broadcast_to(-running[:, None], s.shape))
            w = tl.where(seen, weight(x), 0.0).to(tl.bfloat16)
            factor = rescale(before, running)[:, None]
            sums = tl.dot(w, ones, sums * factor)
            acc = tl.dot(w, v, acc * factor)
        split_sum = tl.max(sums, 1)

        if splits == 1:
            store_row(out, out_f32, at, acc * inverse(split_sum)[:, None], used[:, None])
        else:
            place = (partial + split).to(tl.int64) * heads + kv_head * group + rows
            tl.store(partial_sums + place[:, None] * HEAD_DIM + dim, acc, mask=used[:, None])
            tl.store(partial_rules + 2 * place, running, mask=used)
            tl.store(partial_rules + 2 * place + 1, split_sum, mask=used)
            # All of the program's stores come before the count, and it before the loads of others' stores.
            tl.debug_barrier()
            finished = tl.atomic_add(counters + counter * kv_heads + kv_head, 1, sem="acq_rel", scope="gpu")
            if finished == splits - 1:
                tl.store(counters + counter * kv_heads + kv_head, 0)
                first_place = partial.to(tl.int64) * heads + kv_head * group
                o = merge(partial_rules, partial_sums, first_place, splits, heads, HEAD_DIM, rows, used)
                store_row(out, out_f32, at, o, used[:, None])
