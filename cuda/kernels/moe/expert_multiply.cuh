// The multiplying warps' part of the expert kernel.
#pragma once

#include <type_traits>
#include <utility>

#include "core/launch.cuh"
#include "core/wgmma.cuh"
#include "kernels/moe/expert_store.cuh"

namespace detinfer::expert {

/// Stages at the end of a tile in which a warpgroup's second part is behind its first.
constexpr int kTailStages = 2;

/// Says, for a warp, that a stage has been read, to every block that writes into it.
template <int kIndex>
__device__ __forceinline__ void release(const Memory<kIndex>& memory, int stage, int lane) {
  constexpr int kCluster = kExpertTiles[kIndex].cluster;
  if (lane >= kCluster) return;
  if constexpr (kCluster == 1) {
    barrier_arrive(memory.empty(stage));
  } else {
    barrier_arrive_remote(memory.empty(stage), lane);
  }
}

/// Steps of a stage for some of a warpgroup's parts, as one group. @param w, x of the stage; w of the warpgroup's outputs
template <int kFirst, int kEnd, int kColumns, int kParts>
__device__ __forceinline__ void multiply_stage(float (&acc)[kParts][kColumns / 2], uint32_t w, uint32_t x) {
  const uint64_t a = k_major_descriptor(w, 1024), b = k_major_descriptor(x, 1024);
#pragma unroll
  for (int k16 = 0; k16 < 4; ++k16) {
#pragma unroll
    for (int part = kFirst; part < kEnd; ++part) {
      wgmma_step<kColumns>(acc[part], a + (part * 8192 + k16 * 32) / 16, b + k16 * 32 / 16);
    }
  }
}

/// The chains of a tile that is kColumns entries wide. @param look_ahead called while the last products are under way
template <int kIndex, int kColumns, class LookAhead>
__device__ __forceinline__ void multiply_tile(const Arguments& arguments, const Memory<kIndex>& memory,
                                              const TilePosition& at, Ring& ring, int warp, int lane,
                                              const LookAhead& look_ahead) {
  constexpr int kParts = kExpertTiles[kIndex].parts;
  const int first_output = warp / 4 * kParts * 64, steps = arguments.schedule.steps;
  // A second part is behind in the last stages: its products are under way while the first is stored.
  const int tail = kParts > 1 ? min(kTailStages, steps) : 0;
  int previous = 0;
  float acc[kParts][kColumns / 2];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
#pragma unroll
    for (float& sum : acc[part]) sum = 0.0f;
  }
  const auto wait = [&] {
    barrier_wait(memory.full(ring.stage), ring.parity);
    // Rows of x were copied by threads, and wgmma reads like TMA.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    wgmma_fence();
  };
  const auto store = [&](int part) {
    pin(acc[part]);
    const int first = first_output + part * 64;
    const uint32_t staging = memory.w(previous) + first * 128;
    if (arguments.swiglu) {
      store_swiglu_tile<kColumns>(arguments, acc[part], at, first, staging, warp, lane);
    } else {
      store_tile<kColumns>(arguments, acc[part], at, first, staging, warp, lane);
    }
  };
  for (int step = 0; step < steps - tail; ++step) {
    wait();
    multiply_stage<0, kParts, kColumns>(acc, memory.w(ring.stage) + first_output * 128, memory.x(ring.stage));
    wgmma_commit();
    wgmma_wait<1>();
    if (step > 0) release<kIndex>(memory, previous, lane);
    previous = ring.stage;
    ring.advance(memory.stages);
  }
  if constexpr (kParts > 1) {
    Ring behind = ring;
    for (int step = 0; step < tail; ++step) {
      wait();
      multiply_stage<0, 1, kColumns>(acc, memory.w(ring.stage) + first_output * 128, memory.x(ring.stage));
      wgmma_commit();
      wgmma_wait<1>();
      if (step == 0 && steps > tail) release<kIndex>(memory, previous, lane);
      previous = ring.stage;
      ring.advance(memory.stages);
    }
    Ring late = behind;
#pragma unroll 1
    for (int step = 0; step < tail; ++step, late.advance(memory.stages)) {
      wgmma_fence();
      multiply_stage<1, 2, kColumns>(acc, memory.w(late.stage) + first_output * 128, memory.x(late.stage));
    }
    wgmma_commit();
    look_ahead();
    wgmma_wait<1>();
    store(0);
    wgmma_wait<0>();
    for (; behind.stage != previous; behind.advance(memory.stages)) release<kIndex>(memory, behind.stage, lane);
    store(1);
  } else {
    look_ahead();
    wgmma_wait<0>();
    store(0);
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncwarp();
  release<kIndex>(memory, previous, lane);
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
  int tile = walk.begin;
  TilePosition at = {};
  if (tile < walk.count) at = walk.at(tile);
  for (bool last = tile >= walk.count; !last;) {
    tile += walk.step;
    last = tile >= walk.count;
    TilePosition next = {};
    with_width<kExpertTiles[kIndex].entries>(at.count, kWidths, [&](auto width) {
      multiply_tile<kIndex, width.value>(arguments, memory, at, ring, warp, lane, [&] {
        if (!last) next = walk.at(tile);
      });
    });
    at = next;
  }
}

}  // namespace detinfer::expert
