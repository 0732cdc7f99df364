"""Decoding: one row of a sequence against one split of its keys, for the query heads that share a KV head. There is one
program to a multiprocessor, and its warps have three jobs, so that none waits for another's latencies. Two are dealt
splits and bring their blocks through a ring, which runs on into the next split (decode_tasks.py). Eight compute,
a split at a time (here). Four count finished splits and merge those of a sequence, in order, once all are there
(decode_merge.py)."""
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, mma_v2
from triton.language.extra.cuda import gdc_launch_dependents

from blocks import SWIZZLED, boxes_of
from decode_merge import MERGE_WARPS, merge, store_rows
from decode_tasks import (KEYS, KV_HEAD, PARTIAL, PRODUCERS, ROW, SLOTS, SPLIT, SPLITS, SPLIT_WORDS, TASKS, advance,
                          produce, task_word, wait_unless_idle)
from rules import BLOCK_KEYS, SPLIT_BLOCKS, inverse, next_max, rescale, weight

ROWS = gl.constexpr(16)  # of a tile: query heads
WEIGHTS = gl.constexpr(gl.SwizzledSharedLayout(8, 1, 8, [1, 0]))


@gluon.jit
def load_queries(q, first_head, group, HEAD_DIM: gl.constexpr, LAYOUT: gl.constexpr):
    rows = gl.arange(0, ROWS, gl.SliceLayout(1, LAYOUT))
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, LAYOUT))
    return gl.load(q + (first_head + rows)[:, None] * HEAD_DIM + dim[None, :], mask=(rows < group)[:, None], other=0.0)


@gluon.jit
def block_maxima(scores):
    """The largest score of each row in each of a split's blocks, in one reduction."""
    joined = gl.join(gl.join(scores[0], scores[2]), gl.join(scores[1], scores[3]))
    even, odd = gl.split(gl.max(joined, 1))
    first, third = gl.split(even)
    second, fourth = gl.split(odd)
    return first, second, third, fourth


@gluon.jit
def compute(q, out, out_f32, partial_rules, partial_sums, ring, full, empty, weights, tasks, dealt, stored, count,
            heads, kv_heads, scale, WARPS: gl.constexpr, STAGES: gl.constexpr, HEAD_DIM: gl.constexpr):
    MMA: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [1, WARPS], [16, 8])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, MMA, 2)
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, MMA, 2)
    OF_ROWS: gl.constexpr = gl.SliceLayout(1, MMA)
    group = heads // kv_heads
    rows = gl.arange(0, ROWS, OF_ROWS)
    used = rows < group
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, MMA))
    block_key = gl.arange(0, BLOCK_KEYS, gl.SliceLayout(0, MMA))
    ones = gl.full([BLOCK_KEYS, 8], 1.0, gl.bfloat16, RIGHT)
    no_scores = gl.zeros([ROWS, BLOCK_KEYS], gl.float32, MMA)
    stage = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    slot = gl.to_tensor(0)
    slot_phase = gl.to_tensor(0)
    mbarrier.wait(dealt.index(slot), slot_phase)
    wait_unless_idle(count)
    while task_word(tasks, slot, KEYS) > 0:
        visible = task_word(tasks, slot, KEYS)
        splits = task_word(tasks, slot, SPLITS)
        kv_head = task_word(tasks, slot, KV_HEAD)
        place = (task_word(tasks, slot, PARTIAL) + task_word(tasks, slot, SPLIT)).to(gl.int64) * heads + kv_head * group
        first_head = task_word(tasks, slot, ROW).to(gl.int64) * heads + kv_head * group
        queries = load_queries(q, first_head, group, HEAD_DIM, LEFT)
        scores = ()
        for j in gl.static_range(SPLIT_BLOCKS):
            s = gl.full([ROWS, BLOCK_KEYS], float("-inf"), gl.float32, MMA)
            if j * BLOCK_KEYS < visible:
                mbarrier.wait(full.index(stage), phase)
                s = mma_v2(queries, ring.index(stage).permute((1, 0)).load(RIGHT), no_scores)
                mbarrier.arrive(empty.index(stage))
                stage, phase = advance(stage, phase, STAGES)
                s = gl.where((block_key < visible - j * BLOCK_KEYS)[None, :], s, float("-inf"))
            scores += (s,)
        running = gl.full([ROWS], float("-inf"), gl.float32, OF_ROWS)
        largest = block_maxima(scores)
        after = ()
        for j in gl.static_range(SPLIT_BLOCKS):
            running = next_max(running, gl.convert_layout(largest[j], OF_ROWS) * scale)
            after += (running,)
            w = weight(gl.fma(scores[j], scale, -running[:, None]))
            w = gl.where((block_key < visible - j * BLOCK_KEYS)[None, :], w, 0.0).to(gl.bfloat16)
            weights.index(j).store(w)
        sums = gl.zeros([ROWS, 8], gl.float32, MMA)
        acc = gl.zeros([ROWS, HEAD_DIM], gl.float32, MMA)
        for j in gl.static_range(SPLIT_BLOCKS):
            if j * BLOCK_KEYS < visible:
                if j > 0:
                    factor = rescale(after[j - 1], after[j])[:, None]
                    sums = sums * factor
                    acc = acc * factor
                left = weights.index(j).load(LEFT)
                sums = mma_v2(left, ones, sums)
                mbarrier.wait(full.index(stage), phase)
                acc = mma_v2(left, ring.index(stage).load(RIGHT), acc)
                mbarrier.arrive(empty.index(stage))
                stage, phase = advance(stage, phase, STAGES)
        split_sum = gl.max(sums, 1)

        if splits == 1:
            store_rows(out, out_f32, first_head + rows, acc * inverse(split_sum)[:, None], used, dim, HEAD_DIM)
        else:
            gl.store(partial_sums + (place + rows)[:, None] * HEAD_DIM + dim[None, :], acc, mask=used[:, None])
            gl.store(partial_rules + 2 * (place + rows), running, mask=used)
            gl.store(partial_rules + 2 * (place + rows) + 1, split_sum, mask=used)
        # All of the partition's stores come before it.
        gl.barrier()
        mbarrier.arrive(stored.index(slot))
        slot, slot_phase = advance(slot, slot_phase, SLOTS)
        mbarrier.wait(dealt.index(slot), slot_phase)


@gluon.jit
def decode(plan, split_words, q, keys, values, out, out_f32, partial_rules, partial_sums, counters, queue, heads,
           kv_heads, page_shift, scale, WARPS: gl.constexpr, STAGES: gl.constexpr, HEAD_DIM: gl.constexpr):
    """@param keys, values descriptors of the pools, seen as matrices of head_dim columns, in boxes of 16 rows"""
    gdc_launch_dependents()
    count = gl.load(plan) * kv_heads
    ring = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_KEYS, HEAD_DIM], SWIZZLED)
    boxes = boxes_of(ring, STAGES, HEAD_DIM)
    weights = gl.allocate_shared_memory(gl.bfloat16, [SPLIT_BLOCKS, ROWS, BLOCK_KEYS], WEIGHTS)
    full = mbarrier.allocate_mbarrier(batch=STAGES)
    empty = mbarrier.allocate_mbarrier(batch=STAGES)
    tasks = gl.allocate_shared_memory(gl.int32, [SLOTS, SPLIT_WORDS], TASKS)
    dealt = mbarrier.allocate_mbarrier(batch=SLOTS)
    stored = mbarrier.allocate_mbarrier(batch=SLOTS)
    merged = mbarrier.allocate_mbarrier(batch=SLOTS)
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=PRODUCERS)
        mbarrier.init(empty.index(stage), count=1)
    for slot in gl.static_range(SLOTS):
        mbarrier.init(dealt.index(slot), count=1)
        mbarrier.init(stored.index(slot), count=1)
        mbarrier.init(merged.index(slot), count=1)
    fence_async_shared()
    gl.barrier()
    gl.warp_specialize([
        (compute, (q, out, out_f32, partial_rules, partial_sums, ring, full, empty, weights, tasks, dealt, stored,
                   count, heads, kv_heads, scale, WARPS, STAGES, HEAD_DIM)),
        (merge, (out, out_f32, partial_rules, partial_sums, counters, tasks, dealt, stored, merged, count, heads,
                 kv_heads, HEAD_DIM)),
        (produce, (plan, split_words, keys, values, queue, boxes, full, empty, tasks, dealt, merged, count, kv_heads,
                   page_shift, STAGES, HEAD_DIM, 0)),
        (produce, (plan, split_words, keys, values, queue, boxes, full, empty, tasks, dealt, merged, count, kv_heads,
                   page_shift, STAGES, HEAD_DIM, 1)),
    ], [MERGE_WARPS, 1, 1], [104, 56, 56])
