// What the loading and the multiplying warps of the expert kernel share: its arguments, the order of tiles, and the
// stages in shared memory.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "core/ptx.cuh"
#include "kernels/moe/expert_schedule.h"
#include "kernels/moe/warp_sum.cuh"

namespace detinfer::expert {

struct Arguments {
  const bf16* x;
  /// The row of x of each entry; null: entry i has row i.
  const int32_t* row;
  /// [experts + 1]: where the entries of each begin
  const int32_t* first;
  bf16* y;
  /// Of an expert's matrix.
  int n, k;
  /// y is SwiGLU of outputs that are gates and ups in groups.
  bool swiglu;
  /// Whether most weights are read by one tile.
  bool stream;
  ExpertSchedule schedule;
};

/// Launches the kernel of kExpertTiles[kIndex]. @param w the matrices of all experts
template <int kIndex>
void launch_tile(const CUtensorMap& w, const Arguments& arguments, cudaStream_t stream);

/// A tile of this thread block.
struct TilePosition {
  int expert;
  /// Its first entry and their number.
  int entry, count;
  /// Its first output.
  int output;
};

/// Shared memory: the stages, each a block of W and then of x, a barrier "full" and one "empty" for each stage, and for
/// each expert where its entries and where its tiles of entries begin.
template <int kIndex>
struct Memory {
  static constexpr uint32_t kWBlock = ExpertTile::kOutputs * 128;
  uint32_t base, stage_bytes, barriers;
  int stages;
  int32_t *first, *tiles, *order;

  __device__ __forceinline__ Memory(const ExpertSchedule& s, uint8_t* shared) : stages(s.stages) {
    const uint32_t start = shared_address(shared);
    base = (start + 1023) & ~1023u;
    stage_bytes = kWBlock + s.entries * 128;
    barriers = base + stages * stage_bytes;
    first = reinterpret_cast<int32_t*>(shared + (barriers - start) + 16 * stages);
    tiles = first + s.experts + 1;
    order = tiles + s.experts + 1;
  }
  __device__ __forceinline__ uint32_t w(int stage) const { return base + stage * stage_bytes; }
  __device__ __forceinline__ uint32_t x(int stage) const { return w(stage) + kWBlock; }
  __device__ __forceinline__ uint32_t full(int stage) const { return barriers + 8 * stage; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return barriers + 8 * (stages + stage); }
};

/// Tiles of an expert have a multiple of so many entries, but for the last.
constexpr int kHeightStep = 16;

/// Whether experts are walked in the order of their tiles' heights.
template <int kIndex>
constexpr bool kSorted = kExpertTiles[kIndex].entries > 32;

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// Entries of an expert's tiles but the last, which may have fewer: about as many in each, in steps of a width.
__device__ __forceinline__ int tile_height(int entries, int tiles, int most) {
  return tiles == 0 ? 0 : min(ceil_div(ceil_div(entries, tiles), kHeightStep) * kHeightStep, most);
}

/// Ranks the experts by the height of their tiles, the highest first: blocks that take tiles in turn then get about as
/// much of each height. To be called by one warp.
template <int kIndex>
__device__ __forceinline__ void order_experts(const Arguments& arguments, const Memory<kIndex>& memory, int lane) {
  const int experts = arguments.schedule.experts, most = arguments.schedule.entries;
  int rank = 0;
  for (int step = ceil_div(most, kHeightStep); step >= 0; --step) {
    for (int first = 0; first < experts; first += 32) {
      const int i = first + lane;
      const bool mine = i < experts && ceil_div(memory.tiles[min(i, experts - 1)], kHeightStep) == step;
      const uint32_t all = __ballot_sync(~0u, mine);
      if (mine) memory.order[rank + __popc(all & ((1u << lane) - 1))] = i;
      rank += __popc(all);
    }
  }
}

/// Fills in the tables of experts. To be called by one warp.
template <int kIndex>
__device__ __forceinline__ void count_tiles(const Arguments& arguments, const Memory<kIndex>& memory, int lane) {
  const int experts = arguments.schedule.experts, most = arguments.schedule.entries;
#pragma unroll 4
  for (int i = lane; i < experts; i += 32) {
    // Both ends are asked for at once, and several experts: the weights wait for them.
    const int32_t first = __ldcg(arguments.first + i), end = __ldcg(arguments.first + i + 1);
    const int tiles = ceil_div(end - first, most);
    memory.first[i] = first;
    memory.tiles[i] = kSorted<kIndex> ? tile_height(end - first, tiles, most) : tiles;
    if (i == experts - 1) memory.first[experts] = end;
  }
  __syncwarp();
  if constexpr (kSorted<kIndex>) {
    order_experts(arguments, memory, lane);
    __syncwarp();
  }
  const int share = ceil_div(experts, 32), begin = min(lane * share, experts), end = min(begin + share, experts);
  const auto tiles_of = [&](int rank) {
    if constexpr (!kSorted<kIndex>) return memory.tiles[rank];
    const int expert = memory.order[rank];
    return ceil_div(memory.first[expert + 1] - memory.first[expert], most);
  };
  int sum = 0;
  for (int i = begin; i < end; ++i) sum += tiles_of(i);
  int before = sum_before(sum, lane);
  for (int i = begin; i < end; ++i) {
    const int tiles = tiles_of(i);
    memory.tiles[i] = before;
    before += tiles;
  }
  if (lane == 31) memory.tiles[experts] = before;
}

/// The tiles in order: experts, outputs of an expert, entries, so that tiles with the same weights run together.
template <int kIndex>
struct TileWalk {
  const ExpertSchedule& schedule;
  const Memory<kIndex>& memory;
  /// Of all thread blocks.
  int count;

  __device__ __forceinline__ TileWalk(const ExpertSchedule& s, const Memory<kIndex>& m) : schedule(s), memory(m) {
    count = memory.tiles[s.experts] * s.output_tiles;
  }
  __device__ __forceinline__ TilePosition at(int tile) const {
    // The last expert whose tiles begin at or before this one has tiles.
    const int target = tile / schedule.output_tiles;
    int rank = 0, behind = schedule.experts;
    while (behind - rank > 1) {
      const int middle = (rank + behind) / 2;
      const bool later = memory.tiles[middle] <= target;
      rank = later ? middle : rank;
      behind = later ? behind : middle;
    }
    const int expert = kSorted<kIndex> ? memory.order[rank] : rank;
    const int before = memory.tiles[rank], tiles = memory.tiles[rank + 1] - before;
    const int first = memory.first[expert], entries = memory.first[expert + 1] - first;
    const int rest = tile - before * schedule.output_tiles;
    const int height = tile_height(entries, tiles, schedule.entries);
    const int skipped = rest % tiles * height;
    return {expert, first + skipped, min(height, entries - skipped), rest / tiles * schedule.outputs};
  }
};

/// A place in the ring of stages: its number and the parity of the round.
struct Ring {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void advance(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace detinfer::expert
