// The end of a tile: the bias is added, the result rounded, SwiGLU applied where it is asked for, and stored from the
// layout of wgmma's accumulators.
#pragma once

#include <cstdint>

#include "kernels/linear/linear_launch.cuh"
#include "kernels/mlp/swiglu.cuh"

namespace detinfer::linear {

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
  if (out.kind == LinearOutput::kF32) {
    static_cast<float*>(out.y)[at] = value;
  } else {
    static_cast<bf16*>(out.y)[at] = bf16{uint16_t(pack_bf16(value, 0.0f))};
  }
}

/// Stores kPieces · 8 outputs of a token, of which lane t of four has elements 2t and 2t + 1 of each piece of 8.
/// @param row of y, n long, a multiple of 8
template <int kPieces>
__device__ __forceinline__ void store_pieces(const uint32_t (&pieces)[kPieces], bf16* row, int n, int output,
                                             bool exists, int t) {
  constexpr int kFours = kPieces / 4 * 4;
#pragma unroll
  for (int j = 0; j < kFours; j += 4) {
    // Four pieces, so that every lane stores 8 outputs of its token.
    uint32_t v[4] = {pieces[j], pieces[j + 1], pieces[j + 2], pieces[j + 3]};
    transpose_quad(v, t);
    const int column = output + (j + t) * 8;
    if (exists && column < n) *reinterpret_cast<uint4*>(row + column) = make_uint4(v[0], v[1], v[2], v[3]);
  }
#pragma unroll
  for (int j = kFours; j < kPieces; ++j) {
    const int column = output + j * 8 + t * 2;
    if (exists && column < n) *reinterpret_cast<uint32_t*>(row + column) = pieces[j];
  }
}

/// Adds the bias of a warp's kColumns outputs.
template <int kColumns>
__device__ __forceinline__ void add_bias(const Output& out, float (&acc)[kColumns / 2], int output, int t) {
  if (!out.bias) return;
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) {
    const int column = output + i / 4 * 8 + t * 2 + i % 2;
    if (column < out.n) acc[i] = acc[i] + to_float(out.bias[column]);
  }
}

/// Stores a warp's 16 tokens by kColumns outputs in f32, n being a multiple of 8.
template <int kColumns>
__device__ __forceinline__ void store_f32(const Output& out, const float (&acc)[kColumns / 2], int token,
                                          int rows_left, int output, int lane) {
  const int quad = lane / 4, t = lane % 4;
  const bool odd = t & 1;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = half * 8 + quad;
    if (half * 8 >= rows_left) break;
    float* const y = static_cast<float*>(out.y) + size_t(token + row) * out.n;
#pragma unroll
    for (int j = 0; j < kColumns / 8; j += 2) {
      // Two pieces of 8 outputs: lanes swap halves, so that each stores 4 outputs, of the first piece or the second.
      const float *first = &acc[j * 4 + 2 * half], *second = first + 4;
      const float low = __shfl_xor_sync(~0u, odd ? first[0] : second[0], 1);
      const float high = __shfl_xor_sync(~0u, odd ? first[1] : second[1], 1);
      const int column = output + (j + odd) * 8 + t / 2 * 4;
      if (row < rows_left && column < out.n) {
        const float4 four =
            odd ? make_float4(low, high, second[0], second[1]) : make_float4(first[0], first[1], low, high);
        float4* const to = reinterpret_cast<float4*>(y + column);
        if (out.streams) {
          __stcs(to, four);
        } else {
          *to = four;
        }
      }
    }
  }
}

/// Tokens on the 64-row side: a warp has 16 tokens by kColumns outputs. @param rows_left tokens that exist
template <int kColumns>
__device__ __forceinline__ void store_tokens(const Output& out, float (&acc)[kColumns / 2], int token, int rows_left,
                                             int output, int lane) {
  constexpr int kPieces = kColumns / 8;
  const int quad = lane / 4, t = lane % 4;
  add_bias<kColumns>(out, acc, output, t);
  if (out.n % 8 == 0 && out.kind == LinearOutput::kF32) {
    store_f32<kColumns>(out, acc, token, rows_left, output, lane);
    return;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = half * 8 + quad;
    const bool exists = row < rows_left;
    if (half * 8 >= rows_left) break;
    const auto piece = [&](int j) { return pack_bf16(acc[j * 4 + 2 * half], acc[j * 4 + 2 * half + 1]); };
    const int n = out.kind == LinearOutput::kSwiglu ? out.n / 2 : out.n;
    const size_t start = size_t(token + row) * n;
    if (out.kind == LinearOutput::kSwiglu) {
      // Pieces of gates and of ups take turns.
      uint32_t y[kPieces / 2], ups[kPieces / 2];
#pragma unroll
      for (int j = 0; j < kPieces / 2; ++j) {
        y[j] = piece(2 * j);
        ups[j] = piece(2 * j + 1);
      }
      swiglu(y, ups, exists);
      store_pieces(y, static_cast<bf16*>(out.y) + start, n, output / 2, exists, t);
    } else if (n % 8 == 0 && out.kind == LinearOutput::kBf16) {
      uint32_t pieces[kPieces];
#pragma unroll
      for (int j = 0; j < kPieces; ++j) pieces[j] = piece(j);
      store_pieces(pieces, static_cast<bf16*>(out.y) + start, n, output, exists, t);
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
  if (out.kind == LinearOutput::kSwiglu) {
    // A warp's outputs are 8 gates and their ups.
    static_assert(kColumns % 32 == 0, "pieces in fours");
    const int n = out.n / 2;
    uint32_t y[kColumns / 8], ups[kColumns / 8];
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
      y[j] = pack_bf16(acc[j * 4], acc[j * 4 + 1]);
      ups[j] = pack_bf16(acc[j * 4 + 2], acc[j * 4 + 3]);
    }
    swiglu(y, ups, output < out.n && token + t * 2 < out.rows);
#pragma unroll
    for (int j = 0; j < kColumns / 8; j += 4) {
      // Four pieces of 8 tokens: lane t stores a token of piece t.
      uint32_t v[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) v[q] = transpose_8x8(y[j + q]);
      transpose_quad(v, t);
      const int row = token + (j + t) * 8 + quad;
      if (row < out.rows && output < out.n) {
        *reinterpret_cast<uint4*>(static_cast<bf16*>(out.y) + size_t(row) * n + output / 2) =
            make_uint4(v[0], v[1], v[2], v[3]);
      }
    }
  } else if (out.n % 8 == 0 && out.kind == LinearOutput::kBf16) {
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
