// A row of the vocabulary in the shared memory of a cluster of thread blocks: it is read from memory once, and everything
// else is passes over shared memory. What the warps find is combined by operations whose order can't be seen: integer
// sums and maxima of totally ordered words.
#pragma once

#include <cooperative_groups.h>

#include <cstdint>

#include "kernels/sampler/softmax.h"

namespace detinfer::sampler {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
/// Tokens that can be put in order at a time.
constexpr int kListCapacity = 1024;

/// A token as a word that is larger the earlier the token ranks: larger x first, equal ones by the lower id.
__device__ inline uint64_t rank_word(float x, int id) {
  return uint64_t(uint32_t(order_key(x)) ^ 0x80000000u) << 32 | uint32_t(~id);
}
__device__ inline int word_id(uint64_t word) { return int(~uint32_t(word)); }
__device__ inline float word_value(uint64_t word) {
  const int32_t key = int32_t(uint32_t(word >> 32) ^ 0x80000000u);
  return bits_float(uint32_t(key ^ ((key >> 31) & 0x7FFFFFFF)));
}

__device__ inline uint64_t warp_max(uint64_t word) {
  const uint32_t high = __reduce_max_sync(~0u, uint32_t(word >> 32));
  const uint32_t low = __reduce_max_sync(~0u, uint32_t(word >> 32) == high ? uint32_t(word) : 0u);
  return uint64_t(high) << 32 | low;
}

__device__ inline uint64_t warp_sum(uint64_t value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

/// A block's share of the row's working memory; its slice of the row follows.
template <int kBlocks>
struct alignas(16) RowMemory {
  static constexpr int kAllWarps = kBlocks * kWarps;
  /// The best token of each warp of the cluster, of the last load.
  uint64_t best[kAllWarps];
  /// Two of them in turn: whoever writes one has seen everybody leave the reading of it.
  uint64_t gathered[2][2][kAllWarps];
  /// Tokens and their masses; those of block 0 alone are used.
  uint64_t list[kListCapacity];
  uint64_t list_masses[kListCapacity];
  int list_count;
  uint64_t bar;
  uint64_t warp_words[2][kWarps];
};

template <int kBlocks>
class ClusterRow {
 public:
  using Memory = RowMemory<kBlocks>;
  static constexpr int kAllWarps = Memory::kAllWarps;

  /// Elements of a block's slice, a multiple of 4.
  __host__ __device__ static int slice_size(int n) { return ((n + kBlocks - 1) / kBlocks + 3) / 4 * 4; }

  __device__ ClusterRow(void* shared, int n)
      : memory(*static_cast<Memory*>(shared)),
        x(reinterpret_cast<float*>(static_cast<char*>(shared) + sizeof(Memory))),
        block(int(cooperative_groups::this_cluster().block_rank())),
        first(min(n, block * slice_size(n))),
        count(min(n - first, slice_size(n))),
        padded((count + 3) / 4 * 4),
        n_(n) {}

  /// Calls visit(x, id) for this thread's elements by ascending id, among them up to 3 of -infinity past the row's end.
  template <class Visit>
  __device__ void for_each(const Visit& visit) const {
#pragma unroll 2
    for (int i = int(threadIdx.x) * 4; i < padded; i += kThreads * 4) {
      const float4 v = *reinterpret_cast<const float4*>(x + i);
      visit(v.x, first + i);
      visit(v.y, first + i + 1);
      visit(v.z, first + i + 2);
      visit(v.w, first + i + 3);
    }
  }

  /// Hands every warp's value, equal in its lanes, to all blocks. @param to [kAllWarps] of RowMemory
  __device__ void send(uint64_t* to, uint64_t value) const {
    const int lane = threadIdx.x % 32;
    if (lane >= kBlocks) return;
    *cooperative_groups::this_cluster().map_shared_rank(to + block * kWarps + threadIdx.x / 32, lane) = value;
  }

  __device__ void sync() const { cooperative_groups::this_cluster().sync(); }

  /// The arrays for the next send.
  __device__ uint64_t (&next_gathered())[2][kAllWarps] {
    turn_ ^= 1;
    return memory.gathered[turn_];
  }

  /// The sum over the cluster.
  __device__ uint64_t sum(uint64_t value) {
    auto& all = next_gathered();
    send(all[0], warp_sum(value));
    sync();
    return sum_of(all[0]);
  }

  struct Pair {
    uint64_t a, b;
  };
  __device__ Pair sums(uint64_t a, uint64_t b) {
    auto& all = next_gathered();
    send(all[0], warp_sum(a));
    send(all[1], warp_sum(b));
    sync();
    return {sum_of(all[0]), sum_of(all[1])};
  }

  /// The best token over the cluster; each warp's is left in memory.best.
  __device__ uint64_t best_of(uint64_t word) {
    send(memory.best, warp_max(word));
    sync();
    uint64_t best = 0;
    for (int i = threadIdx.x % 32; i < kAllWarps; i += 32) best = max(best, memory.best[i]);
    return warp_max(best);
  }

  /// The largest x over this block alone.
  __device__ float block_max(float v) {
    const uint64_t word = warp_max(rank_word(v, 0));
    if (threadIdx.x % 32 == 0) memory.warp_words[0][threadIdx.x / 32] = word;
    __syncthreads();
    return word_value(warp_max(memory.warp_words[0][threadIdx.x % kWarps]));
  }

  /// The rank word of a token, whichever block has it.
  __device__ uint64_t word_of(int id) const {
    const int size = slice_size(n_);
    return rank_word(*cooperative_groups::this_cluster().map_shared_rank(x + id % size, id / size), id);
  }

  /// A token that at least `rank` tokens of the row precede or are: the one at that rank, from 1, of the warps' best.
  /// @param rank 1 … kAllWarps
  __device__ uint64_t bar(int rank) {
    __syncthreads();
    if (threadIdx.x < kAllWarps) {
      const uint64_t mine = memory.best[threadIdx.x];
      int before = 0;
#pragma unroll 8
      for (int i = 0; i < kAllWarps; ++i) {
        const uint64_t other = memory.best[i];
        before += other > mine || (other == mine && i < int(threadIdx.x));
      }
      if (before == rank - 1) memory.bar = mine;
    }
    __syncthreads();
    return memory.bar;
  }

  /// Puts the tokens from `last` up to, but without, `limit` into block 0's list in any order. @return how many they are;
  /// beyond kListCapacity the list is not complete
  __device__ int collect(uint64_t last, uint64_t limit) {
    if (collected_) {
      sync();  // block 0 has read the list
      if (block == 0 && threadIdx.x == 0) memory.list_count = 0;
      sync();
    }
    collected_ = true;
    int* const counter = cooperative_groups::this_cluster().map_shared_rank(&memory.list_count, 0);
    uint64_t* const list = cooperative_groups::this_cluster().map_shared_rank(memory.list, 0);
    const float least = word_value(last);
    uint64_t found = 0;
    for_each([&](float v, int id) {
      if (v < least) return;
      const uint64_t word = rank_word(v, id);
      if (word < last || word >= limit) return;
      ++found;
      const int at = atomicAdd(counter, 1);
      if (at < kListCapacity) list[at] = word;
    });
    return int(sum(found));
  }

  Memory& memory;
  /// This block's elements [padded], those with ids from `first` on.
  float* x;
  int block, first, count, padded;

 private:
  __device__ static uint64_t sum_of(const uint64_t* values) {
    uint64_t sum = 0;
    for (int i = threadIdx.x % 32; i < kAllWarps; i += 32) sum += values[i];
    return warp_sum(sum);
  }

  int n_;
  int turn_ = 0;
  bool collected_ = false;
};

}  // namespace detinfer::sampler
