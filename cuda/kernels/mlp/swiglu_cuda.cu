#include <string>

#include "core/bf16_vector.cuh"
#include "core/error.h"
#include "core/launch.cuh"
#include "kernels/mlp/swiglu_cuda.h"

namespace detinfer {
namespace {

constexpr int kThreads = 256;

/// g / (1 + exp(-g)) as the contract has it.
__device__ __forceinline__ float silu(float g) { return __fdiv_rn(g, 1.0f + exp_f32(-g)); }

/// Whether short_silu() may stand for silu(): nothing is infinite, and the quotient's parts are normal.
__device__ __forceinline__ bool is_moderate(float g) { return fabsf(g) < 64.0f; }

/// The bits of silu() for a moderate g, in half the instructions: exp_f32() without its cases and with one exact scaling,
/// and the division that __fdiv_rn() makes where nothing over- or underflows. Tested for every bf16.
__device__ __forceinline__ float short_silu(float g) {
  const ReducedExp e = reduce_exp(-g, 12582912.0f);
  const float d = 1.0f + bits_float(float_bits(e.fraction) + (float_bits(e.shifted) << 23));
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(d));
  inverse = __fmaf_rn(inverse, __fmaf_rn(-d, inverse, 1.0f), inverse);
  float q = g * inverse;
  q = __fmaf_rn(inverse, __fmaf_rn(-d, q, g), q);
  q = __fmaf_rn(inverse, __fmaf_rn(-d, q, g), q);
  return copysignf(q, g);  // a correction of +0 turns -0 into +0
}

/// y = silu(g) · u of two elements each.
__device__ __forceinline__ uint32_t swiglu_pair(uint32_t g, uint32_t u) {
  const float g0 = low_bf16(g), g1 = high_bf16(g);
  float s0 = short_silu(g0), s1 = short_silu(g1);
  if (!is_moderate(g0) || !is_moderate(g1)) {
    s0 = silu(g0);
    s1 = silu(g1);
  }
  return pack_bf16(s0 * low_bf16(u), s1 * high_bf16(u));
}

__device__ __forceinline__ uint32_t swiglu_word(uint32_t g, uint32_t u) { return swiglu_pair(g, u); }

__device__ __forceinline__ uint2 swiglu_word(const uint2& g, const uint2& u) {
  return make_uint2(swiglu_pair(g.x, u.x), swiglu_pair(g.y, u.y));
}

__device__ __forceinline__ uint4 swiglu_word(const uint4& g, const uint4& u) {
  return make_uint4(swiglu_pair(g.x, u.x), swiglu_pair(g.y, u.y), swiglu_pair(g.z, u.z), swiglu_pair(g.w, u.w));
}

/// Thread x of the blocks (i, ·) computes word x of row i. @param words of a row of y
template <class Word>
__global__ void __launch_bounds__(kThreads) swiglu_kernel(const Word* gate_up, int words, Word* y) {
  let_next_start();
  const int64_t row = blockIdx.x;
  const int at = blockIdx.y * blockDim.x + threadIdx.x;
  wait_for_inputs();
  if (at >= words) return;
  const Word* const gates = gate_up + row * 2 * words;
  y[row * words + at] = swiglu_word(gates[at], gates[words + at]);
}

template <class Word>
void launch_words(const bf16* gate_up, int rows, int n, bf16* y, int threads, cudaStream_t stream) {
  const int words = n / int(sizeof(Word) / sizeof(bf16));
  launch(swiglu_kernel<Word>, dim3(rows, (words + threads - 1) / threads), threads, 0, stream,
         reinterpret_cast<const Word*>(gate_up), words, reinterpret_cast<Word*>(y));
}

/// Up to so many elements a thread has 2 or 4 of them, not 8: spread over the multiprocessors, none computes long.
constexpr int64_t kFewElements = 65536, kSomeElements = 2097152;

}  // namespace

void swiglu_cuda(const bf16* gate_up, int rows, int n, bf16* y, cudaStream_t stream) {
  if (n <= 0 || n % 2 != 0) {
    throw Error(ErrorCode::kUnsupported, "swiglu on a GPU works on rows of an even length, not " + std::to_string(n));
  }
  if (rows == 0) return;
  if (n % kVector != 0 || int64_t(rows) * n <= kFewElements) {
    launch_words<uint32_t>(gate_up, rows, n, y, 64, stream);
  } else if (int64_t(rows) * n <= kSomeElements) {
    launch_words<uint2>(gate_up, rows, n, y, 128, stream);
  } else {
    launch_words<uint4>(gate_up, rows, n, y, kThreads, stream);
  }
}

}  // namespace detinfer
