"""Decoding: a program takes one row of a sequence against one split of its keys, for the query heads that share a KV
head, then the next such pair. Some warps compute and one brings blocks of 128 keys or values through a ring, which
runs on into the next pair. The program that finishes a sequence's last split merges them all, in order."""
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, mma_v2
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from blocks import SWIZZLED, boxes_of, load_block
from rules import BLOCK_KEYS, SPLIT_KEYS, inverse, merge_factors, next_max, rescale, weight

ROWS = gl.constexpr(16)  # of a tile: query heads
HEADER_WORDS = gl.constexpr(4)  # of a plan; the first is the number of splits
SPLIT_WORDS = gl.constexpr(8)  # of a DecodeSplit: row, keys, split, splits, partial, counter, 0, 0; its pages follow
MERGED_AT_ONCE = gl.constexpr(8)


@gluon.jit
def record_of(plan, split_words, pair, kv_heads):
    return plan + HEADER_WORDS + (pair // kv_heads).to(gl.int64) * split_words


@gluon.jit
def read_split(plan, split_words, pair, last_pair, kv_heads):
    """A pair's DecodeSplit; that of the last pair behind it."""
    record = record_of(plan, split_words, gl.maximum(gl.minimum(pair, last_pair), 0), kv_heads)
    return (gl.load(record), gl.load(record + 1), gl.load(record + 2), gl.load(record + 3), gl.load(record + 4),
            gl.load(record + 5))


@gluon.jit
def wait_unless_idle(count):
    """A program without a pair ends at once, so that the next kernel's can begin in its place; the first one always
    waits, so that this kernel does not end before the one before it."""
    if (gl.program_id(0) < count) | (gl.program_id(0) == 0):
        gdc_wait()


@gluon.jit
def produce(plan, split_words, keys, values, boxes, full, empty, count, kv_heads, page_shift, STAGES: gl.constexpr,
            HEAD_DIM: gl.constexpr):
    last_page = (SPLIT_KEYS - 1) >> page_shift
    stage = gl.to_tensor(0)
    phase = gl.to_tensor(1)
    wait_unless_idle(count)
    for pair in range(gl.program_id(0), count, gl.num_programs(0)):
        kv_head = pair % kv_heads
        record = record_of(plan, split_words, pair, kv_heads)
        pages = record + SPLIT_WORDS
        visible = gl.load(record + 1)
        # Of a page longer than a split the record holds one; where the split begins in it matters then.
        skipped = (gl.load(record + 2) * SPLIT_KEYS) & ((1 << page_shift) - 1)
        for first in range(0, visible, BLOCK_KEYS):
            mbarrier.wait(empty.index(stage), phase)
            load_block(keys, boxes, stage, full.index(stage), pages, first + skipped, last_page, kv_head, kv_heads,
                       page_shift, HEAD_DIM)
            stage, phase = advance(stage, phase, STAGES)
            mbarrier.wait(empty.index(stage), phase)
            load_block(values, boxes, stage, full.index(stage), pages, first + skipped, last_page, kv_head, kv_heads,
                       page_shift, HEAD_DIM)
            stage, phase = advance(stage, phase, STAGES)


@gluon.jit
def advance(stage, phase, STAGES: gl.constexpr):
    """The next place of the ring."""
    wraps = stage == STAGES - 1
    return gl.where(wraps, 0, stage + 1), gl.where(wraps, phase ^ 1, phase)


@gluon.jit
def load_partial(partial_rules, partial_sums, first, i, heads, rows, used, dim, HEAD_DIM: gl.constexpr):
    at = first + i.to(gl.int64) * heads + rows
    m = gl.load(partial_rules + 2 * at, mask=used, other=0.0, cache_modifier=".cg")
    l = gl.load(partial_rules + 2 * at + 1, mask=used, other=1.0, cache_modifier=".cg")
    places = partial_sums + at[:, None] * HEAD_DIM + dim[None, :]
    return m, l, gl.load(places, mask=used[:, None], other=0.0, cache_modifier=".cg")


@gluon.jit
def add_split(total_max, total_sum, total, part, there):
    """@param there false: the total stays"""
    m, l, o = part
    merged, total_factor, split_factor = merge_factors(total_max, m)
    merged_sum = gl.fma(l, split_factor, total_sum * total_factor)
    merged_o = gl.fma(o, split_factor[:, None], total * total_factor[:, None])
    return gl.where(there, merged, total_max), gl.where(there, merged_sum, total_sum), gl.where(there, merged_o, total)


@gluon.jit
def merge(partial_rules, partial_sums, first, splits, heads, group, HEAD_DIM: gl.constexpr, LAYOUT: gl.constexpr):
    """The splits of a sequence from left to right. @param first row of the workspace of the first split's first head"""
    rows = gl.arange(0, ROWS, gl.SliceLayout(1, LAYOUT))
    used = rows < group
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, LAYOUT))
    total_max = gl.full([ROWS], float("-inf"), gl.float32, gl.SliceLayout(1, LAYOUT))
    total_sum = gl.zeros([ROWS], gl.float32, gl.SliceLayout(1, LAYOUT))
    total = gl.zeros([ROWS, HEAD_DIM], gl.float32, LAYOUT)
    last = splits - 1
    for i in range(0, splits, MERGED_AT_ONCE):
        parts = ()
        for ahead in gl.static_range(MERGED_AT_ONCE):
            at = gl.minimum(i + ahead, last)
            parts += (load_partial(partial_rules, partial_sums, first, at, heads, rows, used, dim, HEAD_DIM),)
        for ahead in gl.static_range(MERGED_AT_ONCE):
            there = i + ahead <= last
            total_max, total_sum, total = add_split(total_max, total_sum, total, parts[ahead], there)
    return total * inverse(total_sum)[:, None]


@gluon.jit
def store_rows(out, out_f32, head, o, used, dim, HEAD_DIM: gl.constexpr):
    """@param head row of `out`, seen as a matrix of head_dim columns of bf16 or, if out_f32, f32"""
    at = head[:, None] * HEAD_DIM + dim[None, :]
    if out_f32 == 0:
        gl.store(out.to(gl.pointer_type(gl.bfloat16)) + at, o.to(gl.bfloat16), mask=used[:, None])
    else:
        gl.store(out.to(gl.pointer_type(gl.float32)) + at, o, mask=used[:, None])


@gluon.jit
def compute(plan, split_words, q, out, out_f32, partial_rules, partial_sums, counters, ring, full, empty, count, heads,
            kv_heads, scale, WARPS: gl.constexpr, STAGES: gl.constexpr, HEAD_DIM: gl.constexpr):
    MMA: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [1, WARPS], [16, 8])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, MMA, 2)
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, MMA, 2)
    MERGE: gl.constexpr = gl.BlockedLayout([1, 4], [128 // HEAD_DIM, HEAD_DIM // 4], [WARPS, 1], [1, 0])
    group = heads // kv_heads
    rows = gl.arange(0, ROWS, gl.SliceLayout(1, MMA))
    used = rows < group
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, MMA))
    left_rows = gl.arange(0, ROWS, gl.SliceLayout(1, LEFT))
    left_dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, LEFT))
    merge_rows = gl.arange(0, ROWS, gl.SliceLayout(1, MERGE))
    merge_dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, MERGE))
    block_key = gl.arange(0, BLOCK_KEYS, gl.SliceLayout(0, MMA))
    ones = gl.full([BLOCK_KEYS, 8], 1.0, gl.bfloat16, RIGHT)
    no_scores = gl.zeros([ROWS, BLOCK_KEYS], gl.float32, MMA)
    stage = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    row, visible, split, splits, partial, counter = read_split(plan, split_words, gl.program_id(0), count - 1, kv_heads)
    wait_unless_idle(count)
    for pair in range(gl.program_id(0), count, gl.num_programs(0)):
        following = read_split(plan, split_words, pair + gl.num_programs(0), count - 1, kv_heads)
        first_head = row.to(gl.int64) * heads + pair % kv_heads * group
        queries = gl.load(q + (first_head + left_rows)[:, None] * HEAD_DIM + left_dim[None, :],
                          mask=(left_rows < group)[:, None], other=0.0)
        running = gl.full([ROWS], float("-inf"), gl.float32, gl.SliceLayout(1, MMA))
        sums = gl.zeros([ROWS, 8], gl.float32, MMA)
        acc = gl.zeros([ROWS, HEAD_DIM], gl.float32, MMA)
        for first in range(0, visible, BLOCK_KEYS):
            mbarrier.wait(full.index(stage), phase)
            s = mma_v2(queries, ring.index(stage).permute((1, 0)).load(RIGHT), no_scores)
            mbarrier.arrive(empty.index(stage))
            stage, phase = advance(stage, phase, STAGES)
            seen = (block_key < visible - first)[None, :]
            s = gl.where(seen, s, float("-inf"))
            before = running
            running = next_max(before, gl.max(s, 1) * scale)
            w = gl.where(seen, weight(gl.fma(s, scale, -running[:, None])), 0.0).to(gl.bfloat16)
            w = gl.convert_layout(w, LEFT)
            factor = rescale(before, running)[:, None]
            sums = mma_v2(w, ones, sums * factor)
            mbarrier.wait(full.index(stage), phase)
            acc = mma_v2(w, ring.index(stage).load(RIGHT), acc * factor)
            mbarrier.arrive(empty.index(stage))
            stage, phase = advance(stage, phase, STAGES)
        split_sum = gl.max(sums, 1)

        if splits == 1:
            store_rows(out, out_f32, first_head + rows, acc * inverse(split_sum)[:, None], used, dim, HEAD_DIM)
        else:
            first_place = partial.to(gl.int64) * heads + pair % kv_heads * group
            place = first_place + split * heads + rows
            gl.store(partial_sums + place[:, None] * HEAD_DIM + dim[None, :], acc, mask=used[:, None])
            gl.store(partial_rules + 2 * place, running, mask=used)
            gl.store(partial_rules + 2 * place + 1, split_sum, mask=used)
            # All of the program's stores come before the count, and it before the loads of others' stores.
            gl.barrier()
            finished = gl.atomic_add(counters + counter * kv_heads + pair % kv_heads, 1, sem="acq_rel", scope="gpu")
            if finished == splits - 1:
                gl.store(counters + counter * kv_heads + pair % kv_heads, 0)
                o = merge(partial_rules, partial_sums, first_place, splits, heads, group, HEAD_DIM, MERGE)
                store_rows(out, out_f32, first_head + merge_rows, o, merge_rows < group, merge_dim, HEAD_DIM)
        row, visible, split, splits, partial, counter = following


@gluon.jit
def decode(plan, split_words, q, keys, values, out, out_f32, partial_rules, partial_sums, counters, heads, kv_heads,
           page_shift, scale, WARPS: gl.constexpr, STAGES: gl.constexpr, HEAD_DIM: gl.constexpr):
    """@param keys, values descriptors of the pools, seen as matrices of head_dim columns, in boxes of 16 rows"""
    gdc_launch_dependents()
    count = gl.load(plan) * kv_heads
    ring = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_KEYS, HEAD_DIM], SWIZZLED)
    boxes = boxes_of(ring, STAGES, HEAD_DIM)
    full = mbarrier.allocate_mbarrier(batch=STAGES)
    empty = mbarrier.allocate_mbarrier(batch=STAGES)
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=1)
        mbarrier.init(empty.index(stage), count=1)
    fence_async_shared()
    gl.barrier()
    gl.warp_specialize([
        (compute, (plan, split_words, q, out, out_f32, partial_rules, partial_sums, counters, ring, full, empty, count,
                   heads, kv_heads, scale, WARPS, STAGES, HEAD_DIM)),
        (produce, (plan, split_words, keys, values, boxes, full, empty, count, kv_heads, page_shift, STAGES, HEAD_DIM)),
    ], [1], [24])
