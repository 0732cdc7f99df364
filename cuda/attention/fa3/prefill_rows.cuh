// The consumers' side of prefill: the 64 rows of a warpgroup, of which a thread holds parts of two.
#pragma once

#include "attention/fa3/prefill.cuh"

namespace detinfer::fa3 {

template <int D>
class PrefillRows {
  using Shared = PrefillShared<D>;
  static constexpr int kOut = D / 2;  // f32 of the output a thread holds
  static constexpr int kSplitBlocks = kSplitKeys / kBlockKeys;

 public:
  __device__ __forceinline__ PrefillRows(const PrefillArgs& args, uint8_t* memory, PrefillBarriers barriers)
      : args_(args),
        memory_(memory),
        shared_(shared_address(memory)),
        barriers_(barriers),
        thread_(threadIdx.x - 128),
        group_(args.heads / args.kv_heads),
        queries_(matrix_descriptor(shared_ + Shared::kQueries + warpgroup() * 8192, 16)) {}

  __device__ __forceinline__ void run() {
    const TileDealer dealer(args_);
    int tile_number = 0;
    for (int round = 0; round < dealer.rounds(); ++round) {
      PrefillTile tile;
      int kv_head;
      if (!dealer.deal(args_, round, tile, kv_head)) continue;
      run_tile(tile, kv_head, tile_number++);
    }
  }

 private:
  __device__ __forceinline__ int warpgroup() const { return thread_ / 128; }
  __device__ __forceinline__ int lane() const { return thread_ % 32; }
  /// Row within the tile of this thread's first elements; the others are 8 rows further.
  __device__ __forceinline__ int first_row() const { return thread_ / 32 * 16 + lane() / 4; }

  __device__ __forceinline__ void run_tile(const PrefillTile& tile, int kv_head, int tile_number) {
    const int blocks = blocks_of_tile(tile);
    const int rows = tile.positions * group_, warpgroup_row = warpgroup() * 64;
    // Blocks that the warpgroup's last row sees, and those that all of its rows see to their ends.
    const int last_position = tile.start + min(warpgroup_row + 63, rows - 1) / group_;
    const int own = warpgroup_row < rows ? last_position / kBlockKeys + 1 : 0;
    const int whole = min((tile.start + warpgroup_row / group_ + 1) / kBlockKeys, own);
    position_[0] = tile.start + first_row() / group_;
    position_[1] = tile.start + (first_row() + 8) / group_;

    barrier_wait(barriers_.queries_full(), tile_number & 1);
    if (own > 0) {
      has_total_ = false;
      first_block(own, whole);
      int j = 1;
#pragma unroll 1
      for (; j < whole; ++j) next_block<false>(j, own);
#pragma unroll 1
      for (; j < own; ++j) next_block<true>(j, own);
      finish(tile, kv_head, own, rows);
    } else if (lane() == 0) {
      barrier_arrive(barriers_.queries_empty());
    }
    // Blocks that only the other warpgroup sees.
    for (int j = own; j < blocks; ++j, ++block_number_) {
      wait_keys(block_number_);
      if (lane() == 0) barrier_arrive(barriers_.keys_empty(block_number_ & 1));
      wait_values(block_number_);
      if (lane() == 0) barrier_arrive(barriers_.values_empty(block_number_ & 1));
    }
  }

  __device__ __forceinline__ void wait_keys(int n) { barrier_wait(barriers_.keys_full(n & 1), (n >> 1) & 1); }
  __device__ __forceinline__ void wait_values(int n) { barrier_wait(barriers_.values_full(n & 1), (n >> 1) & 1); }

  __device__ __forceinline__ void issue_scores(int stage) {
    const uint64_t keys = matrix_descriptor(shared_ + Shared::keys(stage), 16);
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      const int offset = (k / 4 * 16 * kKb + k % 4 * 32) / 16;
      wgmma_scores(scores_, queries_ + offset, keys + offset, k > 0);
    }
    wgmma_commit();
  }

  /// @param accumulate 0 in the first block of a split, whose chains start from zero
  __device__ __forceinline__ void issue_values(int stage, int accumulate) {
    const uint64_t values = matrix_descriptor(shared_ + Shared::values(stage), Shared::value_step(stage));
#pragma unroll
    for (int k = 0; k < kBlockKeys / 16; ++k) {
      wgmma_values(out_, sums_, weights_ + 4 * k, values + k * 2048 / 16, k > 0 ? 1 : accumulate);
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void scores_read(bool last) {
    if (lane() != 0) return;
    barrier_arrive(barriers_.keys_empty(block_number_ & 1));
    if (last) barrier_arrive(barriers_.queries_empty());
  }

  __device__ __forceinline__ void first_block(int own, int whole) {
    wait_keys(block_number_);
    pin(scores_);
    wgmma_fence();
    issue_scores(block_number_ & 1);
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    pin(scores_);
    scores_read(own == 1);
    if (whole > 0) {
      softmax<false>(0, true);
    } else {
      softmax<true>(0, true);
    }
    pack_weights();
    ++block_number_;
  }

  /// Scores of block j, and the product of block j - 1's weights and values.
  template <bool kMasked>
  __device__ __forceinline__ void next_block(int j, int own) {
    wait_keys(block_number_);
    wait_values(block_number_ - 1);
    const bool fresh = j % kSplitBlocks == 0;
    pin(scores_);
    pin(out_);
    pin(sums_);
    wgmma_fence();
    issue_scores(block_number_ & 1);
    issue_values((block_number_ - 1) & 1, (j - 1) % kSplitBlocks != 0);
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
    pin(scores_);
    scores_read(j == own - 1);
    softmax<kMasked>(j, fresh);
    pin(scores_);
    // ptxas moves a wait to the top of its basic block, above the softmax that should hide under the product. In both
    // arms of a branch it stays.
    if (fresh) {
      asm volatile("wgmma.wait_group.sync.aligned 0; // split" ::: "memory");
      values_read();
      set_aside();
    } else {
      const float a0 = rescale(old_max_[0], max_[0]), a1 = rescale(old_max_[1], max_[1]);
      asm volatile("wgmma.wait_group.sync.aligned 0; // block" ::: "memory");
      values_read();
      // Mostly no maximum of the warp has moved; the factors are exactly 1 then.
      if (__any_sync(~0u, old_max_[0] != max_[0] || old_max_[1] != max_[1])) {
#pragma unroll
        for (int i = 0; i < kOut; ++i) out_[i] = out_[i] * (i & 2 ? a1 : a0);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums_[i] = sums_[i] * (i & 2 ? a1 : a0);
      }
    }
    pack_weights();
    ++block_number_;
  }

  __device__ __forceinline__ void values_read() {
    pin(out_);
    pin(sums_);
    if (lane() == 0) barrier_arrive(barriers_.values_empty((block_number_ - 1) & 1));
  }

  /// Largest score of each row. Positive floats are ordered like their bits, and for those there is a maximum of three;
  /// where a thread has no positive score in a row, the warp does it anew as floats.
  __device__ __forceinline__ void row_maxima(float (&largest)[2]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int a = __float_as_int(scores_[2 * r]), b = __float_as_int(scores_[2 * r + 1]);
#pragma unroll
      for (int i = 1; i < 16; i += 2) {
        a = __vimax3_s32(a, __float_as_int(scores_[4 * i + 2 * r]), __float_as_int(scores_[4 * i + 2 * r + 1]));
        if (i == 15) break;
        b = __vimax3_s32(b, __float_as_int(scores_[4 * i + 4 + 2 * r]), __float_as_int(scores_[4 * i + 5 + 2 * r]));
      }
      largest[r] = __int_as_float(max(a, b));
    }
    if (!__any_sync(~0u, (__float_as_int(largest[0]) | __float_as_int(largest[1])) < 0)) return;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float a = fmaxf(scores_[2 * r], scores_[2 * r + 1]), b = fmaxf(scores_[4 + 2 * r], scores_[5 + 2 * r]);
#pragma unroll
      for (int i = 2; i < 16; i += 2) {
        a = fmaxf(a, fmaxf(scores_[4 * i + 2 * r], scores_[4 * i + 2 * r + 1]));
        b = fmaxf(b, fmaxf(scores_[4 * i + 4 + 2 * r], scores_[4 * i + 5 + 2 * r]));
      }
      largest[r] = fmaxf(a, b);
    }
  }

  /// Turns the scores of block j into weights, not yet rounded, and moves the running maxima.
  template <bool kMasked>
  __device__ __forceinline__ void softmax(int j, bool fresh) {
    // Column 8 · (i / 4) + i % 2 of this thread's row r is visible up to limit[r].
    const int first_key = j * kBlockKeys + 2 * (lane() % 4);
    const int limit[2] = {position_[0] - first_key, position_[1] - first_key};
    if constexpr (kMasked) {
#pragma unroll
      for (int i = 0; i < 64; ++i) {
        if (i / 4 * 8 + (i & 1) > limit[(i >> 1) & 1]) scores_[i] = kMinusInfinity;
      }
    }
    float largest[2];
    row_maxima(largest);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float a = largest[r];
      a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
      a = fmaxf(a, __shfl_xor_sync(~0u, a, 2));
      old_max_[r] = max_[r];
      // Rounding is monotone: the largest product is the product of the largest score.
      a = a * args_.scale;
      max_[r] = fresh ? a : next_max(max_[r], a);
    }
    const float scale = args_.scale;
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      const int r = (i >> 1) & 1;
      scores_[i] = weight(__fmaf_rn(scores_[i], scale, -max_[r]));
      if (kMasked && i / 4 * 8 + (i & 1) > limit[r]) scores_[i] = 0.0f;
    }
  }

  /// An accumulator's registers, packed in pairs, are the left operand's of the next product.
  __device__ __forceinline__ void pack_weights() {
#pragma unroll
    for (int i = 0; i < 32; ++i) weights_[i] = pack_bf16(scores_[2 * i], scores_[2 * i + 1]);
  }

  /// Where piece i (four f32) of this thread's part of the total lies. With head_dim 128 the last pieces fill the holes of
  /// the ones, of which each row of 128 bytes uses 16.
  __device__ __forceinline__ float4* total_piece(int i) const {
    if (D == 64 || i < 12) return reinterpret_cast<float4*>(memory_ + Shared::kTotal + (i * kConsumerThreads + thread_) * 16);
    const int row = thread_ & 127, hole = 1 + (i - 12) * 2 + (thread_ >> 7);
    const int place = hole < 8 ? Shared::kOnes + row * 128 + ((hole ^ (row & 7)) << 4) : Shared::kTotalTail + row * 16;
    return reinterpret_cast<float4*>(memory_ + place);
  }

  /// Merges the split that ended with the previous block, whose maxima are old_max_, into the total.
  __device__ __forceinline__ void set_aside() {
    if (!has_total_) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        total_max_[r] = old_max_[r];
        total_sum_[r] = sums_[2 * r];
      }
#pragma unroll
      for (int i = 0; i < kOut / 4; ++i) {
        *total_piece(i) = make_float4(out_[4 * i], out_[4 * i + 1], out_[4 * i + 2], out_[4 * i + 3]);
      }
    } else {
      float total_weight[2], split_weight[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float merged = fmaxf(total_max_[r], old_max_[r]);
        total_weight[r] = rescale(total_max_[r], merged);
        split_weight[r] = rescale(old_max_[r], merged);
        total_max_[r] = merged;
        total_sum_[r] = __fmaf_rn(sums_[2 * r], split_weight[r], total_sum_[r] * total_weight[r]);
      }
#pragma unroll
      for (int i = 0; i < kOut / 4; ++i) {
        float4* const piece = total_piece(i);
        float4 v = *piece;
        v.x = __fmaf_rn(out_[4 * i], split_weight[0], v.x * total_weight[0]);
        v.y = __fmaf_rn(out_[4 * i + 1], split_weight[0], v.y * total_weight[0]);
        v.z = __fmaf_rn(out_[4 * i + 2], split_weight[1], v.z * total_weight[1]);
        v.w = __fmaf_rn(out_[4 * i + 3], split_weight[1], v.w * total_weight[1]);
        *piece = v;
      }
    }
    has_total_ = true;
  }

  /// The last block's values, the last merge, the division and the stores.
  __device__ __forceinline__ void finish(const PrefillTile& tile, int kv_head, int own, int rows) {
    wait_values(block_number_ - 1);
    pin(out_);
    pin(sums_);
    wgmma_fence();
    issue_values((block_number_ - 1) & 1, (own - 1) % kSplitBlocks != 0);
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    values_read();
    if (has_total_) merge_last((own - 1) / kSplitBlocks * kSplitKeys);
    const float inverse[2] = {__fdiv_rn(1.0f, sums_[0]), __fdiv_rn(1.0f, sums_[2])};
#pragma unroll
    for (int i = 0; i < kOut; ++i) out_[i] = out_[i] * inverse[(i >> 1) & 1];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first_row() + 8 * r;
      const int64_t head = int64_t(tile.row + row / group_) * args_.heads + kv_head * group_ + row % group_;
      store_row(r, head * D, row < rows);
    }
  }

  /// Merges the total and the last split into out_ and sums_. Rows before the split's first key keep the total.
  __device__ __forceinline__ void merge_last(int first_key) {
    float total_weight[2], split_weight[2];
    bool sees[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sees[r] = position_[r] >= first_key;
      const float merged = fmaxf(total_max_[r], max_[r]);
      total_weight[r] = rescale(total_max_[r], merged);
      split_weight[r] = rescale(max_[r], merged);
      const float sum = __fmaf_rn(sums_[2 * r], split_weight[r], total_sum_[r] * total_weight[r]);
      sums_[2 * r] = sees[r] ? sum : total_sum_[r];
    }
#pragma unroll
    for (int i = 0; i < kOut / 4; ++i) {
      const float4 piece = *total_piece(i);
      const float v[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int r = e / 2;
        const float merged = __fmaf_rn(out_[4 * i + e], split_weight[r], v[e] * total_weight[r]);
        out_[4 * i + e] = sees[r] ? merged : v[e];
      }
    }
  }

  /// @param at element of out where the row begins @param valid false for rows behind the tile's last position
  __device__ __forceinline__ void store_row(int r, int64_t at, bool valid) {
    const int t = lane() % 4;
    if (args_.out_f32 != nullptr) {
#pragma unroll
      for (int i = 0; i < kOut / 4; ++i) {
        if (!valid) continue;
        *reinterpret_cast<float2*>(args_.out_f32 + at + 8 * i + 2 * t) =
            make_float2(out_[4 * i + 2 * r], out_[4 * i + 2 * r + 1]);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kOut / 4; i += 4) {
      uint32_t v[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) v[e] = pack_bf16(out_[4 * (i + e) + 2 * r], out_[4 * (i + e) + 2 * r + 1]);
      transpose_in_quad(v, t);
      if (valid) *reinterpret_cast<uint4*>(args_.out + at + 8 * (i + t)) = make_uint4(v[0], v[1], v[2], v[3]);
    }
  }

  /// Lane t of each four gets what they hold in v[t], in the lanes' order, so that a store is 16 bytes.
  __device__ __forceinline__ static void transpose_in_quad(uint32_t (&v)[4], int t) {
    const bool odd = t & 1, upper = t & 2;
    swap_in_pair(v[0], v[1], odd, 1);
    swap_in_pair(v[2], v[3], odd, 1);
    swap_in_pair(v[0], v[2], upper, 2);
    swap_in_pair(v[1], v[3], upper, 2);
  }

  /// Swaps this lane's `b` with the `a` of the lane `mask` above it. @param above whether this lane is that one
  __device__ __forceinline__ static void swap_in_pair(uint32_t& a, uint32_t& b, bool above, int mask) {
    const uint32_t other = __shfl_xor_sync(~0u, above ? a : b, mask);
    if (above) {
      a = other;
    } else {
      b = other;
    }
  }

  const PrefillArgs& args_;
  uint8_t* const memory_;
  const uint32_t shared_;
  const PrefillBarriers barriers_;
  const int thread_;
  const int group_;
  const uint64_t queries_;
  int block_number_ = 0;
  bool has_total_ = false;
  int position_[2];
  float scores_[64];
  uint32_t weights_[32];
  float out_[kOut], sums_[4];
  float max_[2] = {0.0f, 0.0f}, old_max_[2], total_max_[2], total_sum_[2];
};

}  // namespace detinfer::fa3
