// The end of a tile: accumulators are rounded and turned around in shared memory, so that a row of y is stored by
// neighbouring threads, which apply SwiGLU where it is asked for.
#pragma once

#include "core/bf16_vector.cuh"
#include "kernels/mlp/swiglu.cuh"
#include "kernels/moe/expert_walk.cuh"

namespace detinfer::expert {

/// Stores matrices of 8x8 that a warp holds as mma does, transposed. Lane i gives the address of column i % 8 of matrix
/// i / 8.
__device__ __forceinline__ void store_transposed(uint32_t address, uint32_t a, uint32_t b) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(address), "r"(a), "r"(b)
               : "memory");
}
__device__ __forceinline__ void store_transposed(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b),
               "r"(c), "r"(d)
               : "memory");
}

__device__ __forceinline__ uint4 load_shared(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

/// Entries that are turned around at a time.
constexpr int kStagedEntries = 64;

/// Where a vector of an entry lies in a staging area, which has 64 outputs of each. The order of an entry's 8 vectors
/// depends on the entry, so that neither writes nor reads collide.
__device__ __forceinline__ uint32_t staged(uint32_t staging, int entry, int vector) {
  return staging + entry * 128 + (vector ^ (entry % 8)) * 16;
}

/// Stores staged entries of 64 outputs each. @param y where output 0 of the first belongs, rows n apart
/// @param outputs, entries those that exist
__device__ __forceinline__ void store_entries(uint32_t staging, int outputs, int entries, bf16* y, int n, int thread) {
  constexpr int kVectors = 64 / kVector, kStep = 128 / kVectors;
  const int vector = thread % kVectors;
#pragma unroll
  for (int i = 0; i < kStagedEntries; i += kStep) {
    const int entry = i + thread / kVectors;
    if (vector * kVector >= outputs || entry >= entries) break;
    *reinterpret_cast<uint4*>(y + int64_t(entry) * n + vector * kVector) = load_shared(staged(staging, entry, vector));
  }
}

/// Stores SwiGLU of staged entries of 32 gates and their ups. @param y, n, outputs of the 32 results
__device__ __forceinline__ void store_swiglu(uint32_t staging, int outputs, int entries, bf16* y, int n, int thread) {
  constexpr int kVectors = 32 / kVector, kStep = 128 / kVectors;
  const int vector = thread % kVectors;
#pragma unroll 1
  for (int i = 0; i < min(entries, kStagedEntries); i += kStep) {
    const int entry = i + thread / kVectors;
    const bool exists = vector * kVector < outputs && entry < entries;
    const uint4 gates = load_shared(staged(staging, entry, 2 * vector));
    const uint4 ups = load_shared(staged(staging, entry, 2 * vector + 1));
    uint32_t words[4] = {gates.x, gates.y, gates.z, gates.w};
    swiglu(words, {ups.x, ups.y, ups.z, ups.w}, exists);
    if (exists) {
      *reinterpret_cast<uint4*>(y + int64_t(entry) * n + vector * kVector) =
          make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

/// A warpgroup's part of a tile: 64 outputs for kColumns entries.
/// @param staging 8 KB that only this warpgroup uses, and TMA fills once all its threads are back
/// @param first_output of the warpgroup, within the tile
template <int kColumns>
__device__ __forceinline__ void store_tile(const Arguments& arguments, float (&acc)[kColumns / 2],
                                           const TilePosition& at, int first_output, uint32_t staging, int warp,
                                           int lane) {
  const int barrier = 1 + warp / 4, thread = warp % 4 * 32 + lane;
  const int n = arguments.swiglu ? arguments.n / 2 : arguments.n;
  // SwiGLU halves everything along the outputs.
  const int output = (at.output + first_output) / (arguments.swiglu ? 2 : 1);
  const int outputs = min(arguments.schedule.outputs - first_output, arguments.n - at.output - first_output) /
                      (arguments.swiglu ? 2 : 1);
  bf16* const y = arguments.y + int64_t(at.entry) * n + output;
#pragma unroll
  for (int first = 0; first < kColumns; first += kStagedEntries) {
    named_barrier_sync(barrier, 128);  // until the last product, or the reads of the round before, are done
#pragma unroll
    for (int column = first; column < min(first + kStagedEntries, kColumns); column += 16) {
      const float* const c = &acc[column / 2];
      const uint32_t to = staged(staging, column - first + lane / 16 * 8 + lane % 8, warp % 4 * 2 + lane / 8 % 2);
      if constexpr (kColumns == 8) {
        store_transposed(to, pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]));
      } else {
        store_transposed(to, pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]), pack_bf16(c[4], c[5]),
                         pack_bf16(c[6], c[7]));
      }
    }
    named_barrier_sync(barrier, 128);
    const int entries = at.count - first;
    bf16* const to = y + int64_t(first) * n;
    if (arguments.swiglu) {
      store_swiglu(staging, outputs, entries, to, n, thread);
    } else {
      store_entries(staging, outputs, entries, to, n, thread);
    }
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncwarp();
}

}  // namespace detinfer::expert
