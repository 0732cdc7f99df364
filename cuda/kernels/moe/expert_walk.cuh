// What the loading and the multiplying warps of the expert kernel share: its arguments, the order of tiles, and the
// stages in shared memory.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "core/cluster.cuh"
#include "core/ptx.cuh"
#include "kernels/moe/expert_schedule.h"
#include "kernels/moe/moe.h"
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
  /// Its first entry and their number, which may be 0 for a block of a cluster.
  int entry, count;
  /// Its first output.
  int output;
};

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// How the entries of an expert are cut into tiles of about as many, the last having what is left; the tiles of a group
/// belong to the blocks of a cluster. A word in shared memory.
template <int kIndex>
struct Cut {
  static constexpr int kCluster = kExpertTiles[kIndex].cluster, kStep = kExpertTiles[kIndex].height_step();
  static_assert(kMaxExperts <= 1 << 10, "bits of an id");
  uint32_t expert : 10, height : 10, groups : 12;

  /// Without a division where all fit into a group.
  static __device__ __forceinline__ Cut of(int expert, int entries, int most) {
    const int groups = entries <= most * kCluster ? int(entries > 0) : ceil_div(entries, most * kCluster);
    const int share = ceil_div(groups <= 1 ? entries : ceil_div(entries, groups), kCluster);
    return {uint32_t(expert), uint32_t(min(ceil_div(share, kStep) * kStep, most)), uint32_t(groups)};
  }
};

/// Shared memory: the stages, each a block of W and then of x, a barrier "full" and one "empty" for each stage, and for
/// each expert where its entries begin; in the order in which experts are walked, where their groups begin and their cuts.
template <int kIndex>
struct Memory {
  static constexpr ExpertTile kTile = kExpertTiles[kIndex];
  static constexpr uint32_t kWBlock = kTile.outputs() * 128;
  uint32_t base, stage_bytes, barriers;
  int stages;
  int32_t *first, *groups;
  Cut<kIndex>* cuts;

  __device__ __forceinline__ Memory(const ExpertSchedule& s, uint8_t* shared) : stages(s.stages) {
    const uint32_t start = shared_address(shared);
    base = (start + 1023) & ~1023u;
    stage_bytes = kWBlock + s.entries * 128;
    barriers = base + stages * stage_bytes;
    first = reinterpret_cast<int32_t*>(shared + (barriers - start) + 16 * stages);
    groups = first + s.experts + 1;
    cuts = reinterpret_cast<Cut<kIndex>*>(groups + s.experts + 1);
  }
  __device__ __forceinline__ uint32_t w(int stage) const { return base + stage * stage_bytes; }
  __device__ __forceinline__ uint32_t x(int stage) const { return w(stage) + kWBlock; }
  __device__ __forceinline__ uint32_t full(int stage) const { return barriers + 8 * stage; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return barriers + 8 * (stages + stage); }
};

/// Whether experts are walked in the order of their tiles' heights. Sorting delays the first weights, which pays only where
/// products are the limit.
template <int kIndex>
constexpr bool kSorted = kExpertTiles[kIndex].cluster > 1;

/// Puts the experts in the order of their tiles' heights, the highest first: blocks that take tiles in turn then get
/// about as much of each height. To be called by one warp.
template <int kIndex>
__device__ __forceinline__ void sort_experts(const Cut<kIndex>* cuts, const ExpertSchedule& schedule, int lane,
                                             Cut<kIndex>* sorted) {
  constexpr int kStep = Cut<kIndex>::kStep;
  int place = 0;
  for (int height = ceil_div(schedule.entries, kStep) * kStep; height >= 0; height -= kStep) {
#pragma unroll 4
    for (int first = 0; first < schedule.experts; first += 32) {
      const Cut<kIndex> cut = cuts[min(first + lane, schedule.experts - 1)];
      const bool mine = first + lane < schedule.experts && ceil_div(int(cut.height), kStep) * kStep == height;
      const uint32_t all = __ballot_sync(~0u, mine);
      if (mine) sorted[place + __popc(all & ((1u << lane) - 1))] = cut;
      place += __popc(all);
    }
  }
}

/// Fills in the tables of experts. To be called by one warp.
template <int kIndex>
__device__ __forceinline__ void count_groups(const Arguments& arguments, const Memory<kIndex>& memory, int lane) {
  const int experts = arguments.schedule.experts, most = arguments.schedule.entries;
  // The table of groups is filled in last.
  Cut<kIndex>* const cuts = kSorted<kIndex> ? reinterpret_cast<Cut<kIndex>*>(memory.groups) : memory.cuts;
#pragma unroll 4
  for (int i = lane; i < experts; i += 32) {
    // Both ends are asked for at once, and several experts: the weights wait for them.
    const int32_t first = __ldcg(arguments.first + i), end = __ldcg(arguments.first + i + 1);
    memory.first[i] = first;
    cuts[i] = Cut<kIndex>::of(i, end - first, most);
    if (i == experts - 1) memory.first[experts] = end;
  }
  __syncwarp();
  if constexpr (kSorted<kIndex>) {
    sort_experts(cuts, arguments.schedule, lane, memory.cuts);
    __syncwarp();
  }
  const int share = ceil_div(experts, 32), begin = min(lane * share, experts), end = min(begin + share, experts);
  int sum = 0;
  for (int i = begin; i < end; ++i) sum += memory.cuts[i].groups;
  int before = sum_before(sum, lane);
  for (int i = begin; i < end; ++i) {
    memory.groups[i] = before;
    before += memory.cuts[i].groups;
  }
  if (lane == 31) memory.groups[experts] = before;
}

/// The groups in order: experts, outputs of an expert, entries, so that tiles with the same weights run together.
template <int kIndex>
struct TileWalk {
  static constexpr int kCluster = kExpertTiles[kIndex].cluster;
  const ExpertSchedule& schedule;
  const Memory<kIndex>& memory;
  /// Groups of all clusters, the first of this block's cluster and how far apart they are.
  int count, begin, step;
  /// Of this block in its cluster.
  int rank;

  __device__ __forceinline__ TileWalk(const ExpertSchedule& s, const Memory<kIndex>& m) : schedule(s), memory(m) {
    count = memory.groups[s.experts] * s.output_tiles;
    begin = blockIdx.x / kCluster;
    step = gridDim.x / kCluster;
    rank = kCluster > 1 ? cluster_rank() : 0;
  }
  /// This block's tile of a group.
  __device__ __forceinline__ TilePosition at(int group) const {
    // The last expert whose groups begin at or before this one has groups.
    const int target = group / schedule.output_tiles;
    int place = 0, behind = schedule.experts;
    while (behind - place > 1) {
      const int middle = (place + behind) / 2;
      const bool later = memory.groups[middle] <= target;
      place = later ? middle : place;
      behind = later ? behind : middle;
    }
    const Cut<kIndex> cut = memory.cuts[place];
    const int expert = cut.expert, height = cut.height, groups = cut.groups;
    const int first = memory.first[expert], entries = memory.first[expert + 1] - first;
    const int rest = group - memory.groups[place] * schedule.output_tiles;
    const int output_tile = groups == 1 ? rest : rest / groups;
    const int skipped = min(((rest - output_tile * groups) * kCluster + rank) * height, entries);
    return {expert, first + skipped, min(height, entries - skipped), output_tile * schedule.outputs};
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
