"""The merging warps of decoding."""
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from decode_tasks import COUNTER, KEYS, KV_HEAD, PARTIAL, ROW, SLOTS, SPLITS, advance, task_word, wait_unless_idle
from rules import inverse, merge_factors

MERGE_WARPS = gl.constexpr(4)
MERGED_AT_ONCE = gl.constexpr(8)


@gluon.jit
def store_rows(out, out_f32, head, o, used, dim, HEAD_DIM: gl.constexpr):
    """@param head row of `out`, seen as a matrix of head_dim columns of bf16 or, if out_f32, f32"""
    at = head[:, None] * HEAD_DIM + dim[None, :]
    if out_f32 == 0:
        gl.store(out.to(gl.pointer_type(gl.bfloat16)) + at, o.to(gl.bfloat16), mask=used[:, None])
    else:
        gl.store(out.to(gl.pointer_type(gl.float32)) + at, o, mask=used[:, None])


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
def merge(out, out_f32, partial_rules, partial_sums, counters, tasks, dealt, stored, merged, count, heads, kv_heads,
          HEAD_DIM: gl.constexpr):
    """Counts splits that the computing warps have stored. Whoever counts a sequence's last one merges them all."""
    group = heads // kv_heads
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    wait_unless_idle(count)
    mbarrier.wait(dealt.index(slot), phase)
    while task_word(tasks, slot, KEYS) > 0:
        row = task_word(tasks, slot, ROW)
        splits = task_word(tasks, slot, SPLITS)
        partial = task_word(tasks, slot, PARTIAL)
        counter = task_word(tasks, slot, COUNTER)
        kv_head = task_word(tasks, slot, KV_HEAD)
        mbarrier.wait(stored.index(slot), phase)
        mbarrier.arrive(merged.index(slot))
        slot, phase = advance(slot, phase, SLOTS)
        if splits > 1:
            at = counters + counter * kv_heads + kv_head
            finished = gl.atomic_add(at, 1, sem="acq_rel", scope="gpu")
            if finished == splits - 1:
                gl.store(at, 0)
                merge_rows(partial_rules, partial_sums, out, out_f32, partial.to(gl.int64) * heads + kv_head * group,
                           row.to(gl.int64) * heads + kv_head * group, splits, heads, group, HEAD_DIM)
        mbarrier.wait(dealt.index(slot), phase)
