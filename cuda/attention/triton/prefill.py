"""Prefill: a program takes a tile of 128 rows, consecutive positions times the query heads that share a KV head, over
all of its keys. One warp brings blocks of 128 keys and values through TMA, two partitions of four warps compute 64 rows
each. The scores of a block are under way while the weights of the block before are multiplied with its values. Between
splits the total waits in shared memory."""
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (fence_async_shared, mbarrier, warpgroup_mma,
                                                              warpgroup_mma_wait)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from blocks import SWIZZLED, boxes_of, load_block, pages_of_block
from rules import BLOCK_KEYS, SPLIT_BLOCKS, inverse, merge_factors, next_max, rescale, weight

PART_ROWS = gl.constexpr(64)  # of a tile's 128
TILE_WORDS = gl.constexpr(4)  # of a PrefillTile: row, positions, start, pages
STAGES = gl.constexpr(2)
SCORES = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16]))
SUMS = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 8, 16]))


@gluon.jit
def produce(keys, values, key_boxes, value_boxes, barriers, pages, last_page, kv_head, kv_heads, page_shift, blocks,
            HEAD_DIM: gl.constexpr):
    keys_full, keys_empty, values_full, values_empty = barriers
    for j in range(blocks):
        stage = j % STAGES
        phase = (j // STAGES & 1) ^ 1
        of_boxes = pages_of_block(pages, j * BLOCK_KEYS, last_page, page_shift)
        mbarrier.wait(keys_empty.index(stage), phase)
        load_block(keys, key_boxes, stage, keys_full.index(stage), of_boxes, j * BLOCK_KEYS, kv_head, kv_heads,
                   page_shift, HEAD_DIM)
        mbarrier.wait(values_empty.index(stage), phase)
        load_block(values, value_boxes, stage, values_full.index(stage), of_boxes, j * BLOCK_KEYS, kv_head, kv_heads,
                   page_shift, HEAD_DIM)


@gluon.jit
def weigh(s, before, position, first_position, j, scale):
    """@returns the running maximum and the weights of block j"""
    key = j * BLOCK_KEYS + gl.arange(0, BLOCK_KEYS, gl.SliceLayout(0, SCORES))
    masked = (j + 1) * BLOCK_KEYS > first_position + 1
    if masked:
        s = gl.where(key[None, :] <= position[:, None], s, float("-inf"))
    running = next_max(before, gl.max(s, 1) * scale)
    w = weight(gl.fma(s, scale, -running[:, None]))
    if masked:
        w = gl.where(key[None, :] <= position[:, None], w, 0.0)
    return running, w.to(gl.bfloat16)


@gluon.jit
def merge_out(total, acc, total_factor, split_factor, ROW: gl.constexpr):
    """@param ROW layout of a factor in the outputs' rows"""
    total_factor = gl.convert_layout(total_factor, ROW)[:, None]
    return gl.fma(acc, gl.convert_layout(split_factor, ROW)[:, None], total * total_factor)


@gluon.jit
def compute(PART: gl.constexpr, q, out, out_f32, shared, work, HEAD_DIM: gl.constexpr):
    """The rows of one half of the tile."""
    queries, key_blocks, value_blocks, ones, totals, barriers = shared
    first_row, positions, start, kv_head, heads, group, scale, blocks = work
    keys_full, keys_empty, values_full, values_empty = barriers
    OUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, OUT, 2)
    LOAD: gl.constexpr = gl.BlockedLayout([1, 8], [32 * 8 // HEAD_DIM, HEAD_DIM // 8], [4, 1], [1, 0])
    scores_row: gl.constexpr = gl.SliceLayout(1, SCORES)
    sums_row: gl.constexpr = gl.SliceLayout(1, SUMS)
    out_row: gl.constexpr = gl.SliceLayout(1, OUT)
    queries = queries.index(PART)
    total = totals.index(PART)

    row = PART * PART_ROWS + gl.arange(0, PART_ROWS, gl.SliceLayout(1, LOAD))
    used = row < positions * group
    at = ((first_row + row // group).to(gl.int64) * heads + kv_head * group + row % group) * HEAD_DIM
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, LOAD))
    queries.store(gl.load(q + at[:, None] + dim[None, :], mask=used[:, None], other=0.0))
    fence_async_shared()
    gl.barrier()

    position = start + (PART * PART_ROWS + gl.arange(0, PART_ROWS, scores_row)) // group
    first_position = start + PART * PART_ROWS // group
    no_scores = gl.zeros([PART_ROWS, BLOCK_KEYS], gl.float32, SCORES)
    running = gl.full([PART_ROWS], float("-inf"), gl.float32, scores_row)
    total_max = running
    total_sum = gl.zeros([PART_ROWS], gl.float32, scores_row)
    sums = gl.zeros([PART_ROWS, 8], gl.float32, SUMS)
    acc = gl.zeros([PART_ROWS, HEAD_DIM], gl.float32, OUT)

    mbarrier.wait(keys_full.index(0), 0)
    s = warpgroup_mma(queries, key_blocks.index(0).permute((1, 0)), no_scores, use_acc=False, is_async=True)
    s = warpgroup_mma_wait(0, deps=(s,))
    mbarrier.arrive(keys_empty.index(0))
    running, w = weigh(s, running, position, first_position, 0, scale)

    for j in range(1, blocks):
        stage = j % STAGES
        last_stage = (j - 1) % STAGES
        fresh = j % SPLIT_BLOCKS == 0
        weights = gl.convert_layout(w, WEIGHTS)
        mbarrier.wait(keys_full.index(stage), j // STAGES & 1)
        mbarrier.wait(values_full.index(last_stage), (j - 1) // STAGES & 1)
        s = warpgroup_mma(queries, key_blocks.index(stage).permute((1, 0)), no_scores, use_acc=False, is_async=True)
        more = (j - 1) % SPLIT_BLOCKS != 0
        sums = warpgroup_mma(weights, ones.permute((1, 0)), sums, use_acc=more, is_async=True)
        acc = warpgroup_mma(weights, value_blocks.index(last_stage), acc, use_acc=more, is_async=True)
        s = warpgroup_mma_wait(2, deps=(s,))
        mbarrier.arrive(keys_empty.index(stage))
        before = running
        running, w = weigh(s, gl.where(fresh, float("-inf"), before), position, first_position, j, scale)
        sums, acc = warpgroup_mma_wait(0, deps=(sums, acc))
        mbarrier.arrive(values_empty.index(last_stage))
        if fresh:
            split_sum = gl.convert_layout(gl.max(sums, 1), scores_row)
            if j == SPLIT_BLOCKS:
                total.store(acc)
                total_max = before
                total_sum = split_sum
            else:
                total_max, total_factor, split_factor = merge_factors(total_max, before)
                total_sum = gl.fma(split_sum, split_factor, total_sum * total_factor)
                total.store(merge_out(total.load(OUT), acc, total_factor, split_factor, out_row))
        else:
            factor = rescale(before, running)
            sums = sums * gl.convert_layout(factor, sums_row)[:, None]
            acc = acc * gl.convert_layout(factor, out_row)[:, None]

    last = blocks - 1
    weights = gl.convert_layout(w, WEIGHTS)
    mbarrier.wait(values_full.index(last % STAGES), last // STAGES & 1)
    more = last % SPLIT_BLOCKS != 0
    sums = warpgroup_mma(weights, ones.permute((1, 0)), sums, use_acc=more, is_async=True)
    acc = warpgroup_mma(weights, value_blocks.index(last % STAGES), acc, use_acc=more, is_async=True)
    sums, acc = warpgroup_mma_wait(0, deps=(sums, acc))
    split_sum = gl.convert_layout(gl.max(sums, 1), scores_row)
    if blocks > SPLIT_BLOCKS:
        total_max, total_factor, split_factor = merge_factors(total_max, running)
        # A row that sees no key of the last split keeps its total.
        seen = position >= last // SPLIT_BLOCKS * SPLIT_BLOCKS * BLOCK_KEYS
        split_sum = gl.where(seen, gl.fma(split_sum, split_factor, total_sum * total_factor), total_sum)
        before_last = total.load(OUT)
        merged = merge_out(before_last, acc, total_factor, split_factor, out_row)
        acc = gl.where(gl.convert_layout(seen, out_row)[:, None], merged, before_last)
    o = acc * gl.convert_layout(inverse(split_sum), out_row)[:, None]

    row = PART * PART_ROWS + gl.arange(0, PART_ROWS, out_row)
    used = (row < positions * group)[:, None]
    at = ((first_row + row // group).to(gl.int64) * heads + kv_head * group + row % group) * HEAD_DIM
    at = at[:, None] + gl.arange(0, HEAD_DIM, gl.SliceLayout(0, OUT))[None, :]
    if out_f32 == 0:
        gl.store(out.to(gl.pointer_type(gl.bfloat16)) + at, o.to(gl.bfloat16), mask=used)
    else:
        gl.store(out.to(gl.pointer_type(gl.float32)) + at, o, mask=used)


@gluon.jit
def prefill(tiles, pages, q, keys, values, out, out_f32, heads, kv_heads, page_shift, scale, HEAD_DIM: gl.constexpr):
    """@param keys, values descriptors of the pools, seen as matrices of head_dim columns, in boxes of 16 rows"""
    gdc_launch_dependents()
    gdc_wait()
    group = heads // kv_heads
    tile = tiles + gl.program_id(0) // kv_heads * TILE_WORDS
    kv_head = gl.program_id(0) % kv_heads
    first_row = gl.load(tile)
    positions = gl.load(tile + 1)
    start = gl.load(tile + 2)
    pages += gl.load(tile + 3)
    last_page = (start + positions - 1) >> page_shift
    blocks = (start + positions + BLOCK_KEYS - 1) // BLOCK_KEYS

    TOTAL: gl.constexpr = gl.SwizzledSharedLayout(vec=2, per_phase=1, max_phase=8, order=[1, 0])
    ONES: gl.constexpr = gl.BlockedLayout([1, 8], [8, 4], [4, 1], [1, 0])
    queries = gl.allocate_shared_memory(gl.bfloat16, [2, PART_ROWS, HEAD_DIM], SWIZZLED)
    key_blocks = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_KEYS, HEAD_DIM], SWIZZLED)
    value_blocks = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_KEYS, HEAD_DIM], SWIZZLED)
    key_boxes = boxes_of(key_blocks, STAGES, HEAD_DIM)
    value_boxes = boxes_of(value_blocks, STAGES, HEAD_DIM)
    totals = gl.allocate_shared_memory(gl.float32, [2, PART_ROWS, HEAD_DIM], TOTAL)
    ones = gl.allocate_shared_memory(gl.bfloat16, [8, BLOCK_KEYS], SWIZZLED,
                                     gl.full([8, BLOCK_KEYS], 1.0, gl.bfloat16, ONES))
    fence_async_shared()
    keys_full = mbarrier.allocate_mbarrier(batch=STAGES)
    keys_empty = mbarrier.allocate_mbarrier(batch=STAGES)
    values_full = mbarrier.allocate_mbarrier(batch=STAGES)
    values_empty = mbarrier.allocate_mbarrier(batch=STAGES)
    for stage in gl.static_range(STAGES):
        mbarrier.init(keys_full.index(stage), count=1)
        mbarrier.init(keys_empty.index(stage), count=2)
        mbarrier.init(values_full.index(stage), count=1)
        mbarrier.init(values_empty.index(stage), count=2)
    fence_async_shared()
    gl.barrier()
    barriers = (keys_full, keys_empty, values_full, values_empty)
    shared = (queries, key_blocks, value_blocks, ones, totals, barriers)
    work = (first_row, positions, start, kv_head, heads, group, scale, blocks)
    gl.warp_specialize([
        (compute, (0, q, out, out_f32, shared, work, HEAD_DIM)),
        (compute, (1, q, out, out_f32, shared, work, HEAD_DIM)),
        (produce, (keys, values, key_boxes, value_boxes, barriers, pages, last_page, kv_head, kv_heads, page_shift,
                   blocks, HEAD_DIM)),
    ], [4, 1], [240, 24])
