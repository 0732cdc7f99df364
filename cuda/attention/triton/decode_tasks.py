"""The pairs of a split and a KV head that a decoding program is dealt. Two warps bring their blocks, half of each block
a warp: all keys, then all values. The first one asks for the pairs' numbers and tells all others."""
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier
from triton.language.extra.cuda import gdc_wait

from blocks import load_block, pages_of_block
from rules import BLOCK_KEYS, SPLIT_KEYS

PRODUCERS = gl.constexpr(2)  # warps that bring a part of every block each
SLOTS = gl.constexpr(3)  # of tasks on their way
HEADER_WORDS = gl.constexpr(4)  # of a plan; the first is the number of splits
SPLIT_WORDS = gl.constexpr(8)  # of a DecodeSplit; its pages follow
# Words of a DecodeSplit, and of a task: one with its KV head in a word that is free. No keys: there are no more tasks.
ROW, KEYS, SPLIT, SPLITS = gl.constexpr(0), gl.constexpr(1), gl.constexpr(2), gl.constexpr(3)
PARTIAL, COUNTER, KV_HEAD, PAIR = gl.constexpr(4), gl.constexpr(5), gl.constexpr(6), gl.constexpr(7)
TASKS = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))
LANES = gl.constexpr(gl.BlockedLayout([1], [32], [1], [0]))


@gluon.jit
def advance(place, phase, PLACES: gl.constexpr):
    """The next place of a ring."""
    wraps = place == PLACES - 1
    return gl.where(wraps, 0, place + 1), gl.where(wraps, phase ^ 1, phase)


@gluon.jit
def wait_unless_idle(count):
    """A program without a pair ends at once, so that the next kernel's can begin in its place; the first one always
    waits, so that this kernel does not end before the one before it."""
    if (gl.program_id(0) < count) | (gl.program_id(0) == 0):
        gdc_wait()


@gluon.jit
def task_word(tasks, slot, WORD: gl.constexpr):
    ONE: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    return gl.max(tasks.index(slot).slice(WORD, 1).load(ONE), 0)


@gluon.jit
def record_of(plan, split_words, pair, count, kv_heads):
    """A pair's DecodeSplit; that of the last pair behind it."""
    index = gl.maximum(gl.minimum(pair, count - 1), 0) // kv_heads
    return plan + HEADER_WORDS + index.to(gl.int64) * split_words


@gluon.jit
def hand_over(tasks, slot, dealt, plan, split_words, pair, count, kv_heads):
    """Gives the other partitions a pair, or the end if it is behind the last one."""
    word = gl.arange(0, SPLIT_WORDS, LANES)
    task = gl.load(record_of(plan, split_words, pair, count, kv_heads) + word)
    task = gl.where(word == KV_HEAD, pair % kv_heads, task)
    task = gl.where(word == PAIR, pair, task)
    tasks.index(slot).store(gl.where((word == KEYS) & (pair >= count), 0, task))
    mbarrier.arrive(dealt.index(slot))


@gluon.jit
def read_extent(plan, split_words, pair, count, kv_heads, page_shift):
    """A pair's pages, its visible keys, and where they begin in the first page."""
    record = record_of(plan, split_words, pair, count, kv_heads)
    # Of a page longer than a split the record holds one; where the split begins in it matters then.
    skipped = (gl.load(record + SPLIT) * SPLIT_KEYS) & ((1 << page_shift) - 1)
    return record + SPLIT_WORDS, gl.load(record + KEYS), skipped


@gluon.jit
def ask(queue):
    """Asks for another number without waiting for it: it is the sum of what the lanes get."""
    lane = gl.arange(0, 32, LANES)
    number = gl.atomic_add(queue + lane, 1, mask=lane == 0, sem="relaxed", scope="gpu")
    return gl.where(lane == 0, number, 0)


@gluon.jit
def bring(pool, boxes, full, empty, stage, phase, of_boxes, pages, visible, skipped, next_pages, next_first, kv_head,
          kv_heads, page_shift, STAGES: gl.constexpr, HEAD_DIM: gl.constexpr, PRODUCER: gl.constexpr):
    """Brings a producer's part of a split's keys or values. A block's pages are asked for before the place of the one
    before is waited for.
    @param of_boxes of the first block @param next_pages, next_first of the block behind the last
    @returns the ring's place, and of_boxes of the block behind the last"""
    last_page = (SPLIT_KEYS - 1) >> page_shift
    for first in range(0, visible, BLOCK_KEYS):
        is_last = first + BLOCK_KEYS >= visible
        following = pages_of_block(gl.where(is_last, next_pages, pages),
                                   gl.where(is_last, next_first, first + BLOCK_KEYS + skipped), last_page, page_shift,
                                   PRODUCER, PRODUCERS)
        mbarrier.wait(empty.index(stage), phase)
        load_block(pool, boxes, stage, full.index(stage), of_boxes, first + skipped, kv_head, kv_heads, page_shift,
                   HEAD_DIM, PRODUCER, PRODUCERS)
        stage, phase = advance(stage, phase, STAGES)
        of_boxes = following
    return stage, phase, of_boxes


@gluon.jit
def produce(plan, split_words, keys, values, queue, boxes, full, empty, tasks, dealt, merged, count, kv_heads,
            page_shift, STAGES: gl.constexpr, HEAD_DIM: gl.constexpr, PRODUCER: gl.constexpr):
    """The work of producer number PRODUCER.
    @param queue two words, both 0 between launches: pairs dealt beyond the first of each program, and programs with
    a pair that are done. A program without one touches neither, as an earlier launch may still be under way."""
    stage = gl.to_tensor(0)
    phase = gl.to_tensor(1)
    slot = gl.to_tensor(0)
    slot_phase = gl.to_tensor(1)
    pair = gl.program_id(0)
    pages, visible, skipped = read_extent(plan, split_words, pair, count, kv_heads, page_shift)
    of_boxes = pages_of_block(pages, skipped, (SPLIT_KEYS - 1) >> page_shift, page_shift, PRODUCER, PRODUCERS)
    if PRODUCER == 0:
        hand_over(tasks, slot, dealt, plan, split_words, pair, count, kv_heads)
    slot, slot_phase = advance(slot, slot_phase, SLOTS)
    # The plan was brought by a copy, see core/launch.cuh; everything else by the kernel before.
    wait_unless_idle(count)
    while pair < count:
        if PRODUCER == 0:
            number = ask(queue)
        stage, phase, of_boxes = bring(keys, boxes, full, empty, stage, phase, of_boxes, pages, visible, skipped, pages,
                                       skipped, pair % kv_heads, kv_heads, page_shift, STAGES, HEAD_DIM, PRODUCER)
        if PRODUCER == 0:
            next_pair = gl.num_programs(0) + gl.sum(number, 0)
            mbarrier.wait(merged.index(slot), slot_phase)
            hand_over(tasks, slot, dealt, plan, split_words, next_pair, count, kv_heads)
        else:
            mbarrier.wait(dealt.index(slot), slot_phase ^ 1)
            next_pair = task_word(tasks, slot, PAIR)
        slot, slot_phase = advance(slot, slot_phase, SLOTS)
        next_pages, next_visible, next_skipped = read_extent(plan, split_words, next_pair, count, kv_heads, page_shift)
        stage, phase, of_boxes = bring(values, boxes, full, empty, stage, phase, of_boxes, pages, visible, skipped,
                                       next_pages, next_skipped, pair % kv_heads, kv_heads, page_shift, STAGES,
                                       HEAD_DIM, PRODUCER)
        pair, pages, visible, skipped = next_pair, next_pages, next_visible, next_skipped
    if PRODUCER == 0:
        busy = gl.minimum(count, gl.num_programs(0))
        if gl.program_id(0) < busy:
            if gl.atomic_add(queue + 1, 1, sem="relaxed", scope="gpu") == busy - 1:
                gl.store(queue, 0)
                gl.store(queue + 1, 0)
