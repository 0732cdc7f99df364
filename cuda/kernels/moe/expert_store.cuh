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

/// Where a warpgroup turns its outputs around: room for kEntries entries of all of them.
template <int kParts>
struct Staging {
  static constexpr int kEntries = 64;
  uint32_t address;

  /// Where a vector of an entry lies. The order of vectors depends on the entry, so that neither writes nor reads
  /// collide.
  __device__ __forceinline__ uint32_t at(int entry, int vector) const {
    return address + entry * kParts * 128 + (vector ^ (entry % 8)) * 16;
  }
};

/// Vectors that a thread takes at once: kMost, or all that it has.
template <int kMost, int kHas>
constexpr int kAtOnce = kHas < 1 ? 1 : kHas < kMost ? kHas : kMost;

/// Stores staged entries. @param y where output 0 of the first belongs, rows n apart @param outputs, entries those that
/// exist @tparam kMost entries
template <int kMost, int kParts>
__device__ __forceinline__ void store_outputs(const Staging<kParts>& staging, int outputs, int entries, bf16* y, int n,
                                              int thread) {
  constexpr int kVectors = 64 * kParts / kVector, kStep = 128 / kVectors, kBatch = kAtOnce<4, kMost / kStep>;
  const int vector = thread % kVectors;
  if (vector * kVector >= outputs) return;
  y += vector * kVector;
#pragma unroll 1
  for (int first = thread / kVectors; first < entries; first += kBatch * kStep) {
    uint4 v[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) v[i] = load_shared(staging.at(first + i * kStep, vector));
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int entry = first + i * kStep;
      if (entry < entries) *reinterpret_cast<uint4*>(y + int64_t(entry) * n) = v[i];
    }
  }
}

/// Stores SwiGLU of staged entries of gates and their ups, half as many outputs.
template <int kMost, int kParts>
__device__ __forceinline__ void store_swiglu(const Staging<kParts>& staging, int outputs, int entries, bf16* y, int n,
                                             int thread) {
  constexpr int kVectors = 32 * kParts / kVector, kStep = 128 / kVectors, kBatch = kAtOnce<2, kMost / kStep>;
  const int vector = thread % kVectors;
  y += vector * kVector;
#pragma unroll 1
  for (int first = thread / kVectors; first - thread / kVectors < entries; first += kBatch * kStep) {
    uint32_t words[4 * kBatch], ups[4 * kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const uint4 g = load_shared(staging.at(first + i * kStep, 2 * vector));
      const uint4 u = load_shared(staging.at(first + i * kStep, 2 * vector + 1));
      words[4 * i] = g.x, words[4 * i + 1] = g.y, words[4 * i + 2] = g.z, words[4 * i + 3] = g.w;
      ups[4 * i] = u.x, ups[4 * i + 1] = u.y, ups[4 * i + 2] = u.z, ups[4 * i + 3] = u.w;
    }
    const bool exists = vector * kVector < outputs;
    swiglu(words, ups, exists && first < entries);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int entry = first + i * kStep;
      if (exists && entry < entries) {
        *reinterpret_cast<uint4*>(y + int64_t(entry) * n) =
            make_uint4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);
      }
    }
  }
}

/// A warpgroup's part of a tile: kParts · 64 outputs for kColumns entries.
/// @param staging that only this warpgroup uses, and TMA fills once all its threads are back
/// @param first_output of the warpgroup, within the tile
template <int kColumns, int kParts>
__device__ __forceinline__ void store_tile(const Arguments& arguments, const float (&acc)[kParts][kColumns / 2],
                                           const TilePosition& at, int first_output, const Staging<kParts>& staging,
                                           int warp, int lane) {
  constexpr int kRound = Staging<kParts>::kEntries;
  constexpr int kMost = kColumns < kRound ? kColumns : kRound;
  const int barrier = 1 + warp / 4, thread = warp % 4 * 32 + lane;
  // SwiGLU halves everything along the outputs.
  const int share = arguments.swiglu ? 2 : 1, n = arguments.n / share;
  const int outputs = (min(arguments.schedule.outputs, arguments.n - at.output) - first_output) / share;
  bf16* const y = arguments.y + int64_t(at.entry) * n + (at.output + first_output) / share;
#pragma unroll
  for (int first = 0; first < kColumns; first += kRound) {
    named_barrier_sync(barrier, 128);  // until the last product, or the reads of the round before, are done
#pragma unroll
    for (int column = first; column < min(first + kRound, kColumns); column += 16) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const float* const c = &acc[part][column / 2];
        const uint32_t to = staging.at(column - first + lane / 16 * 8 + lane % 8,
                                       part * 8 + warp % 4 * 2 + lane / 8 % 2);
        if (kColumns - column == 8) {
          store_transposed(to, pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]));
        } else {
          store_transposed(to, pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]), pack_bf16(c[4], c[5]),
                           pack_bf16(c[6], c[7]));
        }
      }
    }
    named_barrier_sync(barrier, 128);
    const int entries = min(at.count - first, kRound);
    bf16* const to = y + int64_t(first) * n;
    if (arguments.swiglu) {
      store_swiglu<kMost>(staging, outputs, entries, to, n, thread);
    } else {
      store_outputs<kMost>(staging, outputs, entries, to, n, thread);
    }
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncwarp();
}

}  // namespace detinfer::expert
