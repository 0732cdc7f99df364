// The end of a tile: accumulators are rounded and turned around in shared memory, so that a row of y is stored by
// neighbouring threads.
#pragma once

#include "core/bf16_vector.cuh"
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

/// A warpgroup's part of a tile: 64 outputs for kColumns entries.
/// @param staging 8 KB that only this warpgroup uses, and TMA fills once all its threads are back
/// @param first_output of the warpgroup, within the tile
template <int kColumns>
__device__ __forceinline__ void store_tile(const Arguments& arguments, float (&acc)[kColumns / 2],
                                           const TilePosition& at, int first_output, uint32_t staging, int warp,
                                           int lane) {
  // Entries that are turned around at a time; each has a row of vectors of 8 outputs, whose order depends on the entry,
  // so that neither the writes nor the reads collide.
  constexpr int kEntries = 64, kVectors = 64 / kVector, kRow = kVectors * 16;
  constexpr int kStep = 128 / kVectors;
  const int barrier = 1 + warp / 4, thread = warp % 4 * 32 + lane;
  const int vector = thread % kVectors, output = first_output + vector * kVector;
  const bool exists = output < arguments.schedule.outputs && at.output + output < arguments.n;
  bf16* const y = arguments.y + int64_t(at.entry) * arguments.n + at.output + output;
#pragma unroll
  for (int first = 0; first < kColumns; first += kEntries) {
    named_barrier_sync(barrier, 128);  // until the last product, or the reads of the round before, are done
#pragma unroll
    for (int column = first; column < min(first + kEntries, kColumns); column += 16) {
      const float* const c = &acc[column / 2];
      const int entry = column - first + lane / 16 * 8 + lane % 8, half = lane / 8 % 2;
      const uint32_t to = staging + entry * kRow + ((warp % 4 * 2 + half) ^ (lane % 8)) * 16;
      if constexpr (kColumns == 8) {
        store_transposed(to, pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]));
      } else {
        store_transposed(to, pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]), pack_bf16(c[4], c[5]),
                         pack_bf16(c[6], c[7]));
      }
    }
    named_barrier_sync(barrier, 128);
#pragma unroll
    for (int i = 0; i < kEntries; i += kStep) {
      const int entry = i + thread / kVectors;
      if (first + i >= kColumns) break;
      if (!exists || first + entry >= at.count) continue;
      *reinterpret_cast<uint4*>(y + int64_t(first + entry) * arguments.n) =
          load_shared(staging + entry * kRow + (vector ^ (entry % 8)) * 16);
    }
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncwarp();
}

}  // namespace detinfer::expert
