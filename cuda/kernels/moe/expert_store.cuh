// The end of a tile: accumulators are rounded and turned around in shared memory, so that a row of y is stored by
// neighbouring threads, which apply SwiGLU where it is asked for.
#pragma once

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

/// Where results are turned around, in lines of 128 bytes: entries of kOutputs, as many as fit.
template <int kOutputs>
struct Staging {
  static constexpr int kVectors = kOutputs / kVector, kEntries = 64 * 64 / kOutputs;
  uint32_t base;

  /// The order of the 8 vectors of a line depends on the line, so that neither writes nor reads collide.
  __device__ __forceinline__ uint32_t at(int entry, int vector) const {
    constexpr int kPerLine = 8 / kVectors;
    const int line = entry / kPerLine, slot = entry % kPerLine * kVectors + vector;
    return base + line * 128 + (slot ^ (line % 8)) * 16;
  }

  /// Stores entries in rows of y. @param y where output 0 of the first belongs, rows n apart
  /// @param outputs, entries those that exist @param thread of 128
  __device__ __forceinline__ void store(int outputs, int entries, bf16* y, int n, int thread) const {
    const int vector = thread % kVectors;
#pragma unroll
    for (int i = 0; i < kEntries; i += 128 / kVectors) {
      const int entry = i + thread / kVectors;
      if (vector * kVector >= outputs || entry >= entries) break;
      *reinterpret_cast<uint4*>(y + int64_t(entry) * n + vector * kVector) = load_shared(at(entry, vector));
    }
  }
};

/// Rounds a warp's accumulators of kColumns entries and stages its 16 outputs of each.
template <int kColumns>
__device__ __forceinline__ void stage_outputs(const float* acc, const Staging<64>& staging, int warp, int lane) {
#pragma unroll
  for (int column = 0; column < kColumns; column += 16) {
    const float* const c = acc + column / 2;
    const uint32_t to = staging.at(column + lane / 16 * 8 + lane % 8, warp % 4 * 2 + lane / 8 % 2);
    if constexpr (kColumns == 8) {
      store_transposed(to, pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]));
    } else {
      store_transposed(to, pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]), pack_bf16(c[4], c[5]),
                       pack_bf16(c[6], c[7]));
    }
  }
}

/// The same for SwiGLU of 8 gates and their ups. @param entries those that exist, counted from the first column
template <int kColumns>
__device__ __forceinline__ void stage_swiglu(const float* acc, const Staging<32>& staging, int entries, bool exists,
                                             int warp, int lane) {
  constexpr int kWords = kColumns / 8, kFours = kWords / 4 * 4, kRest = kWords % 4;
  uint32_t y[kWords], ups[kWords];
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    const float* const c = acc + j * 4;
    y[j] = pack_bf16(c[0], c[1]);
    ups[j] = pack_bf16(c[2], c[3]);
  }
  swiglu(y, ups, exists && lane % 4 * 2 < entries);
#pragma unroll
  for (int j = 0; j < kFours; j += 4) {
    store_transposed(staging.at(j * 8 + lane, warp % 4), y[j], y[j + 1], y[j + 2], y[j + 3]);
  }
  if constexpr (kRest == 1) store_transposed(staging.at(kFours * 8 + lane % 8, warp % 4), y[kFours]);
  if constexpr (kRest == 2) {
    store_transposed(staging.at(kFours * 8 + lane % 16, warp % 4), y[kFours], y[kFours + 1]);
  }
}

/// A warpgroup's part of a tile: 64 outputs for kColumns entries, from entry kFirst on.
/// @param staging 8 KB that only this warpgroup uses, and TMA fills once all its threads are back
/// @param first_output of the warpgroup, within the tile
template <int kColumns, int kFirst = 0>
__device__ __forceinline__ void store_tile(const Arguments& arguments, const float (&acc)[kColumns / 2],
                                           const TilePosition& at, int first_output, uint32_t staging, int warp,
                                           int lane) {
  constexpr int kPart = 64, kColumnsLeft = kColumns - kFirst;
  constexpr int kNow = kColumnsLeft < kPart ? kColumnsLeft : kPart;
  const int barrier = 1 + warp / 4, thread = warp % 4 * 32 + lane;
  const int outputs = min(arguments.schedule.outputs - first_output, arguments.n - at.output - first_output);
  const int entries = min(at.count - kFirst, kNow), output = at.output + first_output;
  const int64_t entry = at.entry + kFirst;
  named_barrier_sync(barrier, 128);  // until the last product, or the reads of the round before, are done
  if (arguments.swiglu) {
    const Staging<32> halves{staging};
    const int n = arguments.n / 2;
    stage_swiglu<kNow>(acc + kFirst / 2, halves, entries, warp % 4 * 16 < outputs, warp, lane);
    named_barrier_sync(barrier, 128);
    halves.store(outputs / 2, entries, arguments.y + entry * n + output / 2, n, thread);
  } else {
    const Staging<64> whole{staging};
    stage_outputs<kNow>(acc + kFirst / 2, whole, warp, lane);
    named_barrier_sync(barrier, 128);
    whole.store(outputs, entries, arguments.y + entry * arguments.n + output, arguments.n, thread);
  }
  if constexpr (kColumnsLeft > kPart) {
    store_tile<kColumns, kFirst + kPart>(arguments, acc, at, first_output, staging, warp, lane);
  } else {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncwarp();
  }
}

}  // namespace detinfer::expert
