// The end of a tile: accumulators are rounded and turned around in shared memory, so that a row of y is stored by
// neighbouring threads, which apply SwiGLU where it is asked for.
#pragma once

#include <type_traits>

#include "core/bf16_vector.cuh"
#include "kernels/mlp/swiglu.cuh"
#include "kernels/moe/expert_walk.cuh"

namespace detinfer::expert {

/// Stores matrices of 8x8 that a warp holds as mma does, transposed. Lane i gives the address of column i % 8 of matrix
/// i / 8.
__device__ __forceinline__ void store_transposed(uint32_t address, uint32_t a) {
  asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(address), "r"(a) : "memory");
}
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

/// Where a vector of an entry lies where 32 outputs of each are staged.
__device__ __forceinline__ uint32_t staged_swiglu(uint32_t staging, int entry, int vector) {
  return staging + entry * 64 + (vector ^ (entry / 2 % 4)) * 16;
}

/// SwiGLU of kColumns entries: words of two entries each, one output a thread.
template <int kColumns>
__device__ __forceinline__ void activate(const float* acc, int entries, int lane, uint32_t* y) {
  constexpr int kWords = kColumns / 8;
  uint32_t gates[kWords], ups[kWords];
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    gates[j] = pack_bf16(acc[4 * j], acc[4 * j + 1]);
    ups[j] = pack_bf16(acc[4 * j + 2], acc[4 * j + 3]);
  }
  swiglu(gates, ups, lane % 4 * 2 < entries);
#pragma unroll
  for (int j = 0; j < kWords; ++j) y[j] = gates[j];
}

/// SwiGLU of kColumns entries of 32 gates and their ups, and their store.
/// @param y where output 0 of the first belongs, rows n apart @param outputs, entries those that exist
template <int kColumns>
__device__ __forceinline__ void store_swiglu(const float* acc, uint32_t staging, int outputs, int entries, bf16* y,
                                             int n, int barrier, int warp, int lane) {
  constexpr int kWords = kColumns / 8, kPart = 32, kFull = kColumns / kPart * kPart;
  const int thread = warp * 32 + lane, vector = thread % 4;
  uint32_t words[kWords];
#pragma unroll
  for (int part = 0; part < kFull; part += kPart) activate<kPart>(acc + part / 2, entries - part, lane, words + part / 8);
  if constexpr (kFull < kColumns) {
    activate<kColumns - kFull>(acc + kFull / 2, entries - kFull, lane, words + kFull / 8);
  }
  named_barrier_sync(barrier, 128);  // until the last product, or the reads of the round before, are done
#pragma unroll
  for (int word = 0; word < kWords; word += 4) {
    const uint32_t* const c = &words[word];
    if (kWords - word >= 4) {
      store_transposed(staged_swiglu(staging, word * 8 + lane, warp), c[0], c[1], c[2], c[3]);
    } else {
#pragma unroll
      for (int i = 0; i < kWords - word; ++i) {
        store_transposed(staged_swiglu(staging, (word + i) * 8 + lane % 8, warp), c[i]);
      }
    }
  }
  named_barrier_sync(barrier, 128);
#pragma unroll
  for (int i = 0; i < kColumns; i += 32) {
    const int entry = i + thread / 4;
    if (vector * kVector >= outputs || entry >= entries) break;
    *reinterpret_cast<uint4*>(y + int64_t(entry) * n + vector * kVector) =
        load_shared(staged_swiglu(staging, entry, vector));
  }
}

/// A warpgroup's part of a tile of gates and ups.
template <int kColumns>
__device__ __forceinline__ void store_swiglu_tile(const Arguments& arguments, float (&acc)[kColumns / 2],
                                                  const TilePosition& at, int first_output, uint32_t staging, int warp,
                                                  int lane) {
  constexpr int kMost = 2 * kStagedEntries, kFull = kColumns / kMost * kMost;
  const int n = arguments.n / 2;
  const int outputs = (min(arguments.schedule.outputs, arguments.n - at.output) - first_output) / 2;
  bf16* const y = arguments.y + int64_t(at.entry) * n + (at.output + first_output) / 2;
#pragma unroll
  for (int first = 0; first < kFull; first += kMost) {
    store_swiglu<kMost>(acc + first / 2, staging, outputs, at.count - first, y + int64_t(first) * n, n, 1 + warp / 4,
                        warp % 4, lane);
  }
  if constexpr (kFull < kColumns) {
    store_swiglu<kColumns - kFull>(acc + kFull / 2, staging, outputs, at.count - kFull, y + int64_t(kFull) * n, n,
                                   1 + warp / 4, warp % 4, lane);
  }
}

/// A warpgroup's part of a tile: 64 outputs for kColumns entries.
/// @param staging 8 KB that only this warpgroup uses, and TMA fills once all its threads are back
/// @param first_output of the warpgroup, within the tile
template <int kColumns>
__device__ __forceinline__ void store_tile(const Arguments& arguments, float (&acc)[kColumns / 2],
                                           const TilePosition& at, int first_output, uint32_t staging, int warp,
                                           int lane) {
  const int barrier = 1 + warp / 4, thread = warp % 4 * 32 + lane, n = arguments.n;
  const int outputs = min(arguments.schedule.outputs, n - at.output) - first_output;
  bf16* const y = arguments.y + int64_t(at.entry) * n + at.output + first_output;
#pragma unroll
  for (int first = 0; first < kColumns; first += kStagedEntries) {
    named_barrier_sync(barrier, 128);  // until the last product, or the reads of the round before, are done
#pragma unroll
    for (int column = first; column < min(first + kStagedEntries, kColumns); column += 16) {
      const float* const c = &acc[column / 2];
      const uint32_t to = staged(staging, column - first + lane / 16 * 8 + lane % 8, warp % 4 * 2 + lane / 8 % 2);
      if (kColumns - column == 8) {
        store_transposed(to, pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]));
      } else {
        store_transposed(to, pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]), pack_bf16(c[4], c[5]),
                         pack_bf16(c[6], c[7]));
      }
    }
    named_barrier_sync(barrier, 128);
    store_entries(staging, outputs, at.count - first, y + int64_t(first) * n, n, thread);
  }
}

}  // namespace detinfer::expert
