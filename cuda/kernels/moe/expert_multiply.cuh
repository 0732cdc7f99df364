// The multiplying warps' part of the expert kernel.
#pragma once

#include <type_traits>
#include <utility>

#include "core/launch.cuh"
#include "core/wgmma.cuh"
#include "kernels/moe/expert_store.cuh"

namespace detinfer::expert {

/// The chains of a tile that is kColumns entries wide. @param look_ahead called while the last products are under way
template <int kIndex, int kColumns, class LookAhead>
__device__ __forceinline__ void multiply_tile(const Arguments& arguments, const Memory<kIndex>& memory,
                                              const TilePosition& at, Ring& ring, int warp, int lane,
                                              const LookAhead& look_ahead) {
  const int first_output = warp / 4 * 64;
  int previous = 0;
  float acc[kColumns / 2];
#pragma unroll
  for (float& sum : acc) sum = 0.0f;
  for (int step = 0; step < arguments.schedule.steps; ++step) {
    barrier_wait(memory.full(ring.stage), ring.parity);
    // Rows of x were copied by threads, and wgmma reads like TMA.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    const uint64_t a = k_major_descriptor(memory.w(ring.stage) + first_output * 128, 1024);
    const uint64_t b = k_major_descriptor(memory.x(ring.stage), 1024);
    wgmma_fence();
#pragma unroll
    for (int k16 = 0; k16 < 4; ++k16) wgmma_step<kColumns>(acc, a + k16 * 32 / 16, b + k16 * 32 / 16);
    wgmma_commit();
    wgmma_wait<1>();
    if (step > 0 && lane == 0) barrier_arrive(memory.empty(previous));
    previous = ring.stage;
    ring.advance(memory.stages);
  }
  look_ahead();
  wgmma_wait<0>();
  pin(acc);
  const uint32_t staging = memory.w(previous) + first_output * 128;
  if (arguments.swiglu) {
    store_swiglu_tile<kColumns>(arguments, acc, at, first_output, staging, warp, lane);
  } else {
    store_tile<kColumns>(arguments, acc, at, first_output, staging, warp, lane);
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncwarp();
  if (lane == 0) barrier_arrive(memory.empty(previous));
}

/// Calls body with the first width that holds so many entries.
template <int kMost, size_t... kIndices, class Body>
__device__ __forceinline__ void with_width(int entries, std::index_sequence<kIndices...>, const Body& body) {
  const auto fits = [&](auto width) {
    if constexpr (width.value > kMost) {
      return false;
    } else {
      if (entries > width.value) return false;
      body(width);
      return true;
    }
  };
  (fits(std::integral_constant<int, kExpertWidths[kIndices]>()) || ...);
}

template <int kIndex>
__device__ __forceinline__ void consume(const Arguments& arguments, const Memory<kIndex>& memory,
                                        const TileWalk<kIndex>& walk, int warp, int lane) {
  constexpr auto kWidths = std::make_index_sequence<kExpertWidthCount>();
  Ring ring;
  int tile = blockIdx.x;
  TilePosition at = {};
  if (tile < walk.count) at = walk.at(tile);
  while (at.count > 0) {
    tile += gridDim.x;
    TilePosition next = {};
    with_width<kExpertTiles[kIndex].entries>(at.count, kWidths, [&](auto width) {
      multiply_tile<kIndex, width.value>(arguments, memory, at, ring, warp, lane, [&] {
        if (tile < walk.count) next = walk.at(tile);
      });
    });
    at = next;
  }
}

}  // namespace detinfer::expert
