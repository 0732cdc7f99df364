// The end of a tile: the bias is added, the result rounded, and stored from the layout of wgmma's accumulators.
#pragma once

#include <cstdint>

#include "kernels/linear/linear_launch.cuh"

namespace detinfer::linear {

/// Two values rounded to bf16 (a NaN to 0x7FFF), the first in the low half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

/// Transposes 8x8 pieces of bf16 that a warp holds as mma does.
__device__ __forceinline__ uint32_t transpose_8x8(uint32_t piece) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(piece));
  return transposed;
}

/// A 4x4 transposition over four neighbouring lanes: lane t's v[i] becomes what lane i had in v[t].
__device__ __forceinline__ void transpose_quad(uint32_t (&v)[4], int t) {
  const bool odd = t & 1, high = t & 2;
  uint32_t a = odd ? v[0] : v[1], b = odd ? v[2] : v[3];
  a = __shfl_xor_sync(~0u, a, 1);
  b = __shfl_xor_sync(~0u, b, 1);
  (odd ? v[0] : v[1]) = a;
  (odd ? v[2] : v[3]) = b;
  a = high ? v[0] : v[2];
  b = high ? v[1] : v[3];
  a = __shfl_xor_sync(~0u, a, 2);
  b = __shfl_xor_sync(~0u, b, 2);
  (high ? v[0] : v[2]) = a;
  (high ? v[1] : v[3]) = b;
}

__device__ __forceinline__ void store_one(const Output& out, size_t at, float value) {
  if (out.f32) {
    static_cast<float*>(out.y)[at] = value;
  } else {
    static_cast<bf16*>(out.y)[at] = bf16{uint16_t(pack_bf16(value, 0.0f))};
  }
}

/// Tokens on the 64-row side: a warp has 16 tokens by kColumns outputs. @param rows_left tokens that exist
template <int kColumns>
__device__ __forceinline__ void store_tokens(const Output& out, float (&acc)[kColumns / 2], int token, int rows_left,
                                             int output, int lane) {
  const int quad = lane / 4, t = lane % 4;
  if (out.bias) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) {
      const int column = output + i / 4 * 8 + t * 2 + i % 2;
      if (column < out.n) acc[i] = acc[i] + to_float(out.bias[column]);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = half * 8 + quad;
    const bool exists = row < rows_left;
    const size_t start = size_t(token + row) * out.n;
    if (out.n % 8 == 0 && !out.f32) {
      constexpr int kFours = kColumns / 32 * 4;
#pragma unroll
      for (int j = 0; j < kFours; j += 4) {
        // Four pieces of 8 outputs, so that every lane stores 8 outputs of its token.
        uint32_t v[4];
#pragma unroll
        for (int q = 0; q < 4; ++q) v[q] = pack_bf16(acc[(j + q) * 4 + 2 * half], acc[(j + q) * 4 + 2 * half + 1]);
        transpose_quad(v, t);
        const int column = output + (j + t) * 8;
        if (exists && column < out.n) {
          *reinterpret_cast<uint4*>(static_cast<bf16*>(out.y) + start + column) = make_uint4(v[0], v[1], v[2], v[3]);
        }
      }
#pragma unroll
      for (int j = kFours; j < kColumns / 8; ++j) {
        const int column = output + j * 8 + t * 2;
        if (exists && column < out.n) {
          *reinterpret_cast<uint32_t*>(static_cast<bf16*>(out.y) + start + column) =
              pack_bf16(acc[j * 4 + 2 * half], acc[j * 4 + 2 * half + 1]);
        }
      }
    } else if (out.n % 8 == 0) {
      const bool odd = t & 1;
#pragma unroll
      for (int j = 0; j < kColumns / 8; j += 2) {
        // Two pieces of 8 outputs: lanes swap halves, so that each stores 4 outputs, of the first piece or the second.
        const float *first = &acc[j * 4 + 2 * half], *second = first + 4;
        const float low = __shfl_xor_sync(~0u, odd ? first[0] : second[0], 1);
        const float high = __shfl_xor_sync(~0u, odd ? first[1] : second[1], 1);
        const int column = output + (j + odd) * 8 + t / 2 * 4;
        if (exists && column < out.n) {
          *reinterpret_cast<float4*>(static_cast<float*>(out.y) + start + column) =
              odd ? make_float4(low, high, second[0], second[1]) : make_float4(first[0], first[1], low, high);
        }
      }
    } else {
#pragma unroll
      for (int j = 0; j < kColumns / 4; ++j) {
        const int column = output + j / 2 * 8 + t * 2 + j % 2;
        if (exists && column < out.n) store_one(out, start + column, acc[j / 2 * 4 + 2 * half + j % 2]);
      }
    }
  }
}

/// Outputs on the 64-row side: a warp has 16 outputs by kColumns tokens.
template <int kColumns>
__device__ __forceinline__ void store_outputs(const Output& out, float (&acc)[kColumns / 2], int output, int token,
                                              int lane) {
  const int quad = lane / 4, t = lane % 4;
  if (out.bias) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = output + half * 8 + quad;
      const float bias = row < out.n ? to_float(out.bias[row]) : 0.0f;
#pragma unroll
      for (int j = 0; j < kColumns / 4; ++j) acc[j / 2 * 4 + 2 * half + j % 2] += bias;
    }
  }
  if (out.n % 8 == 0 && !out.f32) {
    bf16* const y = static_cast<bf16*>(out.y);
    if constexpr (kColumns == 8) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t v = transpose_8x8(pack_bf16(acc[2 * half], acc[2 * half + 1]));
        const int row = output + half * 8;
        if (token + quad < out.rows && row < out.n) {
          *reinterpret_cast<uint32_t*>(y + size_t(token + quad) * out.n + row + t * 2) = v;
        }
      }
    } else {
#pragma unroll
      for (int j = 0; j < kColumns / 8; j += 2) {
        // Two pieces of 8 tokens by 16 outputs: lane t stores outputs 8 · (t % 2) … of a token of piece t / 2.
        uint32_t v[4];
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int i = (j + q / 2) * 4 + 2 * (q % 2);
          v[q] = transpose_8x8(pack_bf16(acc[i], acc[i + 1]));
        }
        transpose_quad(v, t);
        const int row = token + (j + t / 2) * 8 + quad, column = output + t % 2 * 8;
        if (row < out.rows && column < out.n) {
          *reinterpret_cast<uint4*>(y + size_t(row) * out.n + column) = make_uint4(v[0], v[1], v[2], v[3]);
        }
      }
    }
  } else {
    // For each accumulator four tokens by 8 consecutive outputs: whole sectors in f32.
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) {
      const int row = token + i / 4 * 8 + t * 2 + i % 2, column = output + i / 2 % 2 * 8 + quad;
      if (row < out.rows && column < out.n) store_one(out, size_t(row) * out.n + column, acc[i]);
    }
  }
}

}  // namespace detinfer::linear
