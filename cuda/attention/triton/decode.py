"""Decoding: a program takes one row of a sequence against one split of its keys, for the query heads that share a KV
head, then the next such pair; there is one program to a multiprocessor. One warp brings blocks of 128 keys, then those
of their values, through a ring, which runs on into the next pair. Eight warps compute a split at a time. Four count the
splits that are done; those of the program that counts a sequence's last one merge them all, in order."""
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, mma_v2
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from blocks import SWIZZLED, boxes_of, load_block
from rules import BLOCK_KEYS, SPLIT_BLOCKS, SPLIT_KEYS, inverse, merge_factors, next_max, rescale, weight

ROWS = gl.constexpr(16)  # of a tile: query heads
HEADER_WORDS = gl.constexpr(4)  # of a plan; the first is the number of splits
SPLIT_WORDS = gl.constexpr(8)  # of a DecodeSplit: row, keys, split, splits, partial, counter, 0, 0; its pages follow
MERGE_WARPS = gl.constexpr(4)
MERGE_REGS = gl.constexpr(104)
MERGED_AT_ONCE = gl.constexpr(8)
SLOTS = gl.constexpr(2)  # splits on their way to the merging warps
WEIGHTS = gl.constexpr(gl.SwizzledSharedLayout(8, 1, 8, [1, 0]))


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
        for first in range(0, visible, BLOCK_KEYS):
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
def merge_rows(partial_rules, partial_sums, out, out_f32, place, head, splits, heads, group, HEAD_DIM: gl.constexpr):
    """Merges a sequence's splits from left to right, for the query heads that share a KV head.
    @param place row of the workspace of the first split's first head @param head row of `out` of the first head"""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, HEAD_DIM // 32], [1, 32], [MERGE_WARPS, 1], [1, 0])
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, LAYOUT))
    last = splits - 1
    for first in range(0, group, MERGE_WARPS):
        rows = first + gl.arange(0, MERGE_WARPS, gl.SliceLayout(1, LAYOUT))
        used = rows < group
        total_max = gl.full([MERGE_WARPS], float("-inf"), gl.float32, gl.SliceLayout(1, LAYOUT))
        total_sum = gl.zeros([MERGE_WARPS], gl.float32, gl.SliceLayout(1, LAYOUT))
        total = gl.zeros([MERGE_WARPS, HEAD_DIM], gl.float32, LAYOUT)
        for i in range(0, splits, MERGED_AT_ONCE):
            parts = ()
            for ahead in gl.static_range(MERGED_AT_ONCE):
                at = gl.minimum(i + ahead, last)
                parts += (load_partial(partial_rules, partial_sums, place, at, heads, rows, used, dim, HEAD_DIM),)
            for ahead in gl.static_range(MERGED_AT_ONCE):
                there = i + ahead <= last
                total_max, total_sum, total = add_split(total_max, total_sum, total, parts[ahead], there)
        store_rows(out, out_f32, head + rows, total * inverse(total_sum)[:, None], used, dim, HEAD_DIM)


@gluon.jit
def merge(plan, split_words, out, out_f32, partial_rules, partial_sums, counters, stored, merged, count, heads,
          kv_heads, HEAD_DIM: gl.constexpr):
    """Counts splits that the computing warps have stored. Whoever counts a sequence's last one merges them all."""
    group = heads // kv_heads
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    wait_unless_idle(count)
    for pair in range(gl.program_id(0), count, gl.num_programs(0)):
        row, visible, split, splits, partial, counter = read_split(plan, split_words, pair, count - 1, kv_heads)
        mbarrier.wait(stored.index(slot), phase)
        mbarrier.arrive(merged.index(slot))
        slot, phase = advance(slot, phase, SLOTS)
        if splits > 1:
            kv_head = pair % kv_heads
            at = counters + counter * kv_heads + kv_head
            finished = gl.atomic_add(at, 1, sem="acq_rel", scope="gpu")
            if finished == splits - 1:
                gl.store(at, 0)
                merge_rows(partial_rules, partial_sums, out, out_f32, partial.to(gl.int64) * heads + kv_head * group,
                           row.to(gl.int64) * heads + kv_head * group, splits, heads, group, HEAD_DIM)


@gluon.jit
def store_rows(out, out_f32, head, o, used, dim, HEAD_DIM: gl.constexpr):
    """@param head row of `out`, seen as a matrix of head_dim columns of bf16 or, if out_f32, f32"""
    at = head[:, None] * HEAD_DIM + dim[None, :]
    if out_f32 == 0:
        gl.store(out.to(gl.pointer_type(gl.bfloat16)) + at, o.to(gl.bfloat16), mask=used[:, None])
    else:
        gl.store(out.to(gl.pointer_type(gl.float32)) + at, o, mask=used[:, None])


@gluon.jit
def block_maxima(scores):
    """The largest score of each row in each of a split's blocks, in one reduction."""
    joined = gl.join(gl.join(scores[0], scores[2]), gl.join(scores[1], scores[3]))
    even, odd = gl.split(gl.max(joined, 1))
    first, third = gl.split(even)
    second, fourth = gl.split(odd)
    return first, second, third, fourth


@gluon.jit
def compute(plan, split_words, q, out, out_f32, partial_rules, partial_sums, ring, full, empty, weights, stored, merged,
            count, heads, kv_heads, scale, WARPS: gl.constexpr, STAGES: gl.constexpr, HEAD_DIM: gl.constexpr):
    MMA: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [1, WARPS], [16, 8])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, MMA, 2)
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, MMA, 2)
    ROW: gl.constexpr = gl.SliceLayout(1, MMA)
    group = heads // kv_heads
    rows = gl.arange(0, ROWS, ROW)
    used = rows < group
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, MMA))
    left_rows = gl.arange(0, ROWS, gl.SliceLayout(1, LEFT))
    left_dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, LEFT))
    block_key = gl.arange(0, BLOCK_KEYS, gl.SliceLayout(0, MMA))
    ones = gl.full([BLOCK_KEYS, 8], 1.0, gl.bfloat16, RIGHT)
    no_scores = gl.zeros([ROWS, BLOCK_KEYS], gl.float32, MMA)
    stage = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    slot = gl.to_tensor(0)
    slot_phase = gl.to_tensor(1)
    row, visible, split, splits, partial, counter = read_split(plan, split_words, gl.program_id(0), count - 1, kv_heads)
    wait_unless_idle(count)
    for pair in range(gl.program_id(0), count, gl.num_programs(0)):
        following = read_split(plan, split_words, pair + gl.num_programs(0), count - 1, kv_heads)
        first_head = row.to(gl.int64) * heads + pair % kv_heads * group
        queries = gl.load(q + (first_head + left_rows)[:, None] * HEAD_DIM + left_dim[None, :],
                          mask=(left_rows < group)[:, None], other=0.0)
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
        running = gl.full([ROWS], float("-inf"), gl.float32, ROW)
        largest = block_maxima(scores)
        maxima = ()
        for j in gl.static_range(SPLIT_BLOCKS):
            running = next_max(running, gl.convert_layout(largest[j], ROW) * scale)
            maxima += (running,)
            w = weight(gl.fma(scores[j], scale, -running[:, None]))
            w = gl.where((block_key < visible - j * BLOCK_KEYS)[None, :], w, 0.0).to(gl.bfloat16)
            weights.index(j).store(w)
        sums = gl.zeros([ROWS, 8], gl.float32, MMA)
        acc = gl.zeros([ROWS, HEAD_DIM], gl.float32, MMA)
        for j in gl.static_range(SPLIT_BLOCKS):
            if j * BLOCK_KEYS < visible:
                if j > 0:
                    factor = rescale(maxima[j - 1], maxima[j])[:, None]
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
            place = partial.to(gl.int64) * heads + pair % kv_heads * group + split * heads + rows
            gl.store(partial_sums + place[:, None] * HEAD_DIM + dim[None, :], acc, mask=used[:, None])
            gl.store(partial_rules + 2 * place, running, mask=used)
            gl.store(partial_rules + 2 * place + 1, split_sum, mask=used)
        mbarrier.wait(merged.index(slot), slot_phase)
        # All of the partition's stores come before it.
        gl.barrier()
        mbarrier.arrive(stored.index(slot))
        slot, slot_phase = advance(slot, slot_phase, SLOTS)
        row, visible, split, splits, partial, counter = following


@gluon.jit
def decode(plan, split_words, q, keys, values, out, out_f32, partial_rules, partial_sums, counters, heads, kv_heads,
           page_shift, scale, WARPS: gl.constexpr, STAGES: gl.constexpr, HEAD_DIM: gl.constexpr):
    """@param keys, values descriptors of the pools, seen as matrices of head_dim columns, in boxes of 16 rows"""
    gdc_launch_dependents()
    count = gl.load(plan) * kv_heads
    ring = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_KEYS, HEAD_DIM], SWIZZLED)
    boxes = boxes_of(ring, STAGES, HEAD_DIM)
    weights = gl.allocate_shared_memory(gl.bfloat16, [SPLIT_BLOCKS, ROWS, BLOCK_KEYS], WEIGHTS)
    full = mbarrier.allocate_mbarrier(batch=STAGES)
    empty = mbarrier.allocate_mbarrier(batch=STAGES)
    stored = mbarrier.allocate_mbarrier(batch=SLOTS)
    merged = mbarrier.allocate_mbarrier(batch=SLOTS)
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=1)
        mbarrier.init(empty.index(stage), count=1)
    for slot in gl.static_range(SLOTS):
        mbarrier.init(stored.index(slot), count=1)
        mbarrier.init(merged.index(slot), count=1)
    fence_async_shared()
    gl.barrier()
    gl.warp_specialize([
        (compute, (plan, split_words, q, out, out_f32, partial_rules, partial_sums, ring, full, empty, weights, stored,
                   merged, count, heads, kv_heads, scale, WARPS, STAGES, HEAD_DIM)),
        (merge, (plan, split_words, out, out_f32, partial_rules, partial_sums, counters, stored, merged, count, heads,
                 kv_heads, HEAD_DIM)),
        (produce, (plan, split_words, keys, values, boxes, full, empty, count, kv_heads, page_shift, STAGES, HEAD_DIM)),
    ], [MERGE_WARPS, 1], [MERGE_REGS, 24])
