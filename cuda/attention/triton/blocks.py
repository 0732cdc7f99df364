"""Blocks of keys and values on their way from a paged pool to shared memory."""
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

from rules import BLOCK_KEYS

# A box of TMA: what every page size is a multiple of, and the columns of a 128-byte swizzle.
BOX_ROWS = gl.constexpr(16)
BOX_COLUMNS = gl.constexpr(64)
SWIZZLED = gl.constexpr(gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2))


@gluon.jit
def boxes_of(blocks, COUNT: gl.constexpr, HEAD_DIM: gl.constexpr):
    """The boxes that so many blocks in shared memory are made of."""
    BOXES: gl.constexpr = COUNT * (BLOCK_KEYS // BOX_ROWS) * (HEAD_DIM // BOX_COLUMNS)
    return blocks._reinterpret(gl.bfloat16, [BOXES, BOX_ROWS, BOX_COLUMNS], SWIZZLED)


@gluon.jit
def pages_of_block(pages, first, last_page, page_shift, PART: gl.constexpr = 0, PARTS: gl.constexpr = 1):
    """The page of each box of the block at the positions from `first` on, counted from the first of `pages`. Boxes
    behind the last page repeat it: their keys are masked.
    @param PART, PARTS one of some equal parts of the boxes"""
    COUNT: gl.constexpr = BLOCK_KEYS // BOX_ROWS // PARTS
    of_boxes = ()
    for box in gl.static_range(PART * COUNT, (PART + 1) * COUNT):
        of_boxes += (gl.load(pages + gl.minimum((first + box * BOX_ROWS) >> page_shift, last_page)),)
    return of_boxes


@gluon.jit
def load_block(pool, boxes, block, full, of_boxes, first, kv_head, kv_heads, page_shift, HEAD_DIM: gl.constexpr,
               PART: gl.constexpr = 0, PARTS: gl.constexpr = 1):
    """Brings a head's keys or values of a block, and completes the barrier `full`.
    @param pool descriptor of the pool, seen as a matrix of head_dim columns
    @param of_boxes, first, PART, PARTS of pages_of_block()"""
    OWN: gl.constexpr = BLOCK_KEYS // BOX_ROWS // PARTS
    COUNT: gl.constexpr = BLOCK_KEYS // BOX_ROWS
    PIECES: gl.constexpr = HEAD_DIM // BOX_COLUMNS
    mbarrier.expect(full, BLOCK_KEYS * HEAD_DIM * 2 // PARTS)
    for box in gl.static_range(PART * OWN, (PART + 1) * OWN):
        key = first + box * BOX_ROWS
        row = ((of_boxes[box - PART * OWN] * kv_heads + kv_head) << page_shift) + (key & ((1 << page_shift) - 1))
        for piece in gl.static_range(PIECES):
            to = boxes.index((block * PIECES + piece) * COUNT + box)
            tma.async_copy_global_to_shared(pool, [row, piece * BOX_COLUMNS], full, to)
