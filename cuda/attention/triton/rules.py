"""The scalar rules of attention (docs/numerics.md) in Triton; C++ has them in core/numerics.h and kernels/attention."""
import triton
import triton.language as tl

BLOCK_KEYS = tl.constexpr(128)
SPLIT_KEYS = tl.constexpr(512)
SPLIT_BLOCKS = tl.constexpr(4)
LAZY_MARGIN = tl.constexpr(8.0)


@triton.jit
def exp2(x):
    """2^x as core/numerics.h computes it, for x <= 128."""
    x = tl.where(x < -126.0, -126.0, x)
    shifted = x + 12582912.0  # 1.5 * 2^23: adding it rounds to an integer
    f = x - (shifted - 12582912.0)
    p = tl.fma(0.0013333558, f, 0.009618129)
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
def merge_factors(total_max, split_max):
    """What a split's end needs: the merged maximum, and the factors of the total and of the split."""
    merged = tl.maximum(total_max, split_max)
    return merged, rescale(total_max, merged), rescale(split_max, merged)


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
    return tl.div_rn(1.0, x)
