// The launchers of the flashinfer kernels, between their files.
#pragma once

#include <cuda_runtime.h>

#include "attention/decode/args.cuh"
#include "attention/plan.h"

namespace detinfer::flashinfer {

struct PrefillArgs {
  /// As many as were planned at the launch.
  const PrefillTile* tiles;
  int tile_count;
  /// With shares, a thread block computes the pieces shares[block] … shares[block + 1] - 1 instead of whole tiles.
  const PrefillPiece* pieces;
  const int32_t* shares;
  int share_count;
  /// The list that a tile's `pages` points into.
  const int32_t* pages;
  const bf16* q;
  const bf16* keys;
  const bf16* values;
  bf16* out;
  /// If not null, it gets the outputs before rounding, and `out` nothing.
  float* out_f32;
  int heads;
  int kv_heads;
  int head_dim;
  /// Query heads that share a KV head, and 2^16 / group rounded up.
  int group;
  int group_inverse;
  /// 2^31 / kv_heads rounded up.
  unsigned kv_heads_inverse;
  /// log2 of the page size.
  int page_shift;
  float scale;
  /// Totals of finished splits, total_floats() for each block: what shared memory has no room for of the block's own,
  /// and one that it hands on to the next block.
  float* totals;
  /// Whether a block's warps have handed theirs on, [block][warp]; all 0 between launches.
  int* handed;
};

/// For at least one tile. @tparam D columns in shared memory: 64, 128 or 256, at least head_dim
template <int D>
void launch_prefill(const PrefillArgs& args, cudaStream_t stream);

/// Rows of a tile, and elements of `totals` for each thread block.
template <int D>
int tile_rows();
template <int D>
int total_floats();
/// Elements of `handed` for each thread block.
constexpr int kPrefillWarps = 8;

/// Takes its part of the plan from the device, and the number of blocks depends on the device alone, so that the launch
/// can stand in a graph.
template <int D>
void launch_decode(const attention::DecodeArgs& args, cudaStream_t stream);

}  // namespace detinfer::flashinfer
