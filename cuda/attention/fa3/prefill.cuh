// Prefill: a tile is 128 rows, consecutive positions times the query heads that share a KV head. One producer warp
// brings blocks of 128 keys and values through TMA, two warpgroups of 64 rows each compute. The scores of block j + 1
// are under way while block j's weights are multiplied with its values, and its softmax hides under that product.
#pragma once

#include "attention/rules.cuh"
#include "attention/fa3/wgmma.cuh"
#include "attention/plan.h"
#include "core/ptx.cuh"

namespace detinfer::fa3 {

using namespace attention;

struct PrefillArgs {
  const PrefillTile* tiles;
  const int32_t* pages;
  int tile_count;
  int heads;
  int kv_heads;
  /// log2 of the page size.
  int page_shift;
  float scale;
  bf16* out;
  /// If not null, it gets the outputs before rounding, and `out` nothing.
  float* out_f32;
};

constexpr int kConsumerThreads = 256;
constexpr int kPrefillThreads = 128 + kConsumerThreads;
constexpr int kKb = 1024;

/// Shared memory in bytes. A piece is 128 rows of 64 columns with the 128-byte swizzle. The pieces of each stage's values
/// and the ones lie in arithmetic progression, so that one product covers [values | ones].
template <int D>
struct PrefillShared;

template <>
struct PrefillShared<128> {
  static constexpr int kOnes = 96 * kKb, kQueries = 144 * kKb, kTotal = 176 * kKb, kTotalTail = 224 * kKb;
  static constexpr int kBarriers = 226 * kKb, kBytes = kBarriers + 128;
  __device__ static int keys(int stage) { return stage ? 112 * kKb : 16 * kKb; }
  __device__ static int values(int stage) { return stage ? 64 * kKb : 0; }
  __device__ static int value_step(int stage) { return stage ? 16 * kKb : 48 * kKb; }
};

template <>
struct PrefillShared<64> {
  static constexpr int kOnes = 32 * kKb, kQueries = 80 * kKb, kTotal = 96 * kKb, kTotalTail = 128 * kKb;
  static constexpr int kBarriers = 128 * kKb, kBytes = kBarriers + 128;
  __device__ static int keys(int stage) { return stage ? 64 * kKb : 48 * kKb; }
  __device__ static int values(int stage) { return stage ? 16 * kKb : 0; }
  __device__ static int value_step(int stage) { return stage ? 16 * kKb : 32 * kKb; }
};

/// Addresses of the barriers: two stages of keys and of values, and the queries.
struct PrefillBarriers {
  uint32_t base;
  __device__ uint32_t keys_full(int stage) const { return base + 8 * stage; }
  __device__ uint32_t keys_empty(int stage) const { return base + 16 + 8 * stage; }
  __device__ uint32_t values_full(int stage) const { return base + 32 + 8 * stage; }
  __device__ uint32_t values_empty(int stage) const { return base + 48 + 8 * stage; }
  __device__ uint32_t queries_full() const { return base + 64; }
  __device__ uint32_t queries_empty() const { return base + 72; }
};

/// Deals the tiles, heaviest first, in a snake: forth in even rounds and back in odd ones.
struct TileDealer {
  int total;

  __device__ explicit TileDealer(const PrefillArgs& args) : total(args.tile_count * args.kv_heads) {}
  __device__ int rounds() const { return (total + gridDim.x - 1) / gridDim.x; }
  /// False if the block has no tile in this round.
  __device__ bool deal(const PrefillArgs& args, int round, PrefillTile& tile, int& kv_head) const {
    const int i = round * gridDim.x + (round & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
    if (i >= total) return false;
    tile = args.tiles[i / args.kv_heads];
    kv_head = i % args.kv_heads;
    return true;
  }
};

__device__ __forceinline__ int blocks_of_tile(const PrefillTile& tile) {
  return (tile.start + tile.positions + kBlockKeys - 1) / kBlockKeys;
}

/// The producer warp's work.
template <int D>
__device__ __forceinline__ void produce(const CUtensorMap* queries, const CUtensorMap* keys, const CUtensorMap* values,
                                        const PrefillArgs& args, uint32_t shared, PrefillBarriers barriers) {
  using Shared = PrefillShared<D>;
  constexpr int kPieces = D / 64, kStageBytes = kBlockKeys * D * 2;
  const int lane = threadIdx.x % 32, group = args.heads / args.kv_heads, tile_positions = kTileRows / group;
  const bool leader = elect_one();
  // A block of keys is a whole number of pages, or a page of blocks; a box is what both have in common.
  const int box_shift = min(args.page_shift, 7), boxes = kBlockKeys >> box_shift;
  const int box_bytes = 128 << box_shift;
  const TileDealer dealer(args);
  int block_number = 0, tile_number = 0;
  for (int round = 0; round < dealer.rounds(); ++round) {
    PrefillTile tile;
    int kv_head;
    if (!dealer.deal(args, round, tile, kv_head)) continue;
    const int blocks = blocks_of_tile(tile);
    const int last_page = (tile.start + tile.positions - 1) >> args.page_shift;
    // Row of the pool, seen as a matrix of head_dim columns, where this lane's box of the block begins. Boxes behind the
    // last page repeat it: their keys are masked.
    auto box_row = [&](int block) {
      const int key = block * kBlockKeys + (lane << box_shift);
      const int page = args.pages[tile.pages + min(key >> args.page_shift, last_page)];
      return ((page * args.kv_heads + kv_head) << args.page_shift) + (key & ((1 << args.page_shift) - 1));
    };
    auto load = [&](const CUtensorMap* map, int to, int piece_step, int row, uint32_t barrier) {
      for (int box = 0; box < boxes; ++box) {
        const int y = __shfl_sync(~0u, row, box);
        if (leader) {
#pragma unroll
          for (int piece = 0; piece < kPieces; ++piece) {
            tma_load_2d(shared + to + piece * piece_step + box * box_bytes, map, piece * 64, y, barrier);
          }
        }
      }
    };
    int row = box_row(0);
    for (int j = 0; j < blocks; ++j, ++block_number) {
      const int stage = block_number & 1, parity = ((block_number >> 1) & 1) ^ 1;
      const int next_row = box_row(min(j + 1, blocks - 1));
      if (leader) {
        barrier_wait(barriers.keys_empty(stage), parity);
        if (j == 0) {
          barrier_wait(barriers.queries_empty(), (tile_number & 1) ^ 1);
          barrier_expect(barriers.queries_full(), group * tile_positions * D * 2);
#pragma unroll
          for (int piece = 0; piece < kPieces; ++piece) {
            tma_load_3d(shared + Shared::kQueries + piece * 16 * kKb, queries, piece * 64, kv_head * group, tile.row,
                        barriers.queries_full());
          }
        }
        barrier_expect(barriers.keys_full(stage), kStageBytes);
      }
      load(keys, Shared::keys(stage), 16 * kKb, row, barriers.keys_full(stage));
      if (leader) {
        barrier_wait(barriers.values_empty(stage), parity);
        barrier_expect(barriers.values_full(stage), kStageBytes);
      }
      load(values, Shared::values(stage), Shared::value_step(stage), row, barriers.values_full(stage));
      row = next_row;
    }
    ++tile_number;
  }
}

}  // namespace detinfer::fa3
