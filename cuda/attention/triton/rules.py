"""The scalar rules of attention (docs/numerics.md) in Triton; those of C++ are in core/numerics.h and kernels/attention."""
import triton
import triton.language as tl

BLOCK_KEYS = tl.constexpr(128)
SPLIT_KEYS = tl.constexpr(512)
LAZY_MARGIN = tl.constexpr(8.0)


@triton.jit
def exp2(x):
    """2^x as core/numerics.h computes it, for x <= 128."""
    x = tl.where(x < -126.0, -126.0, x)
    shifted = x + 12582912.0  # 1.5 * 2^23: adding it rounds to an integer
    f = x - (shifted - 12582912.0)
    p = tl.fma(tl.full(f.shape, 0.0013333558, tl.float32), f, 0.009618129)
    p = tl.fma(p, f, 0.055504109)
    p = tl.fma(p, f, 0.24022651)
    p = tl.fma(p, f, 0.69314718)
    p = tl.fma(p, f, 1.0)
    return (p.to(tl.int32, bitcast=True) + (shifted.to(tl.int32, bitcast=True) << 23)).to(tl.float32, bitcast=True)


@triton.jit
def rescale(before, after):
    """The factor between what was summed against one maximum and what is summed against another."""
    return exp2(tl.where(before == after, 0.0, before - after))


@triton.jit
def next_max(running, block):
    """The lazy maximum. -infinity needs no case of its own: whatever is above it is above it plus the margin."""
    return tl.where(block > running + LAZY_MARGIN, block, running)


@triton.jit
def weight(x):
    """w(x) before its rounding to bf16: the GPU's own instruction, checked exhaustively on sm_90."""
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def inverse(x):
    """1 / x, correctly rounded."""
    return tl.div_rn(tl.full(x.shape, 1.0, tl.float32), x)


@triton.jit
def block_rows(pages, key, last_page, kv_head, kv_heads, page_shift):
    """Rows of the pool, seen as a matrix of head_dim columns, of keys at these positions from the list's first page on.
    Places behind the last page repeat it: their keys are masked."""
    page = tl.load(pages + tl.minimum(key >> page_shift, last_page))
    row = ((page * kv_heads + kv_head) << page_shift) + (key & ((1 << page_shift) - 1))
    return row.to(tl.int64)
