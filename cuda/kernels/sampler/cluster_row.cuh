// A row of the vocabulary in the shared memory of a cluster of thread blocks: it is read from memory once, and all else
// is passes over shared memory. What the warps find is combined by operations whose order can't be seen: integer sums and
// maxima of totally ordered words.
#pragma once

#include <cooperative_groups.h>

#include <cstdint>

#include "kernels/sampler/rank_word.cuh"
#include "kernels/sampler/sampler_table.cuh"

namespace detinfer::sampler {

/// Blocks of a cluster: two of them per multiprocessor hold two rows of 151,936 on 8 multiprocessors.
constexpr int kBlocks = 8;
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kAllWarps = kBlocks * kWarps;
/// Tokens that can be put in order at a time.
constexpr int kListCapacity = 1024;
/// A slice arrives in parts of so many elements, each with its barrier.
constexpr int kPart = kThreads * 4 * 2;
constexpr int kMaxParts = 16;

/// A block's share of the row's working memory; its slice of the row follows.
struct alignas(16) RowMemory {
  RowTask task;
  uint64_t arrived[kMaxParts];
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

class ClusterRow {
 public:
  /// Elements of a block's slice, a multiple of 4.
  __host__ __device__ static int slice_size(int n) { return ((n + kBlocks - 1) / kBlocks + 3) / 4 * 4; }

  __device__ ClusterRow(void* shared, int n)
      : memory(*static_cast<RowMemory*>(shared)),
        x(reinterpret_cast<float*>(static_cast<char*>(shared) + sizeof(RowMemory))),
        block(int(cooperative_groups::this_cluster().block_rank())),
        first(min(n, block * slice_size(n))),
        count(min(n - first, slice_size(n))),
        padded((count + 3) / 4 * 4) {}

  /// Calls visit(v[4], id of v[0]) for this thread's elements by ascending id, among them up to 3 of -infinity past the
  /// row's end.
  template <class Visit>
  __device__ void for_each_four(const Visit& visit) const {
#pragma unroll 2
    for (int i = int(threadIdx.x) * 4; i < padded; i += kThreads * 4) {
      const float4 four = *reinterpret_cast<const float4*>(x + i);
      const float v[4] = {four.x, four.y, four.z, four.w};
      visit(v, first + i);
    }
  }
  /// Likewise visit(v, id) one by one.
  template <class Visit>
  __device__ void for_each(const Visit& visit) const {
    for_each_four([&](const float(&v)[4], int id) {
#pragma unroll
      for (int i = 0; i < 4; ++i) visit(v[i], id + i);
    });
  }

  __device__ void sync() const { cooperative_groups::this_cluster().sync(); }

  /// Hands every warp's value, equal in its lanes, to all blocks. @param to [kAllWarps] of RowMemory
  __device__ void send(uint64_t* to, uint64_t value) const {
    const int lane = threadIdx.x % 32;
    if (lane >= kBlocks) return;
    *cooperative_groups::this_cluster().map_shared_rank(to + block * kWarps + threadIdx.x / 32, lane) = value;
  }

  /// The arrays for the next exchange: send, sync, then read.
  __device__ uint64_t (&next_gathered())[2][kAllWarps] {
    turn_ ^= 1;
    return memory.gathered[turn_];
  }
  __device__ static uint64_t sum_of(const uint64_t* values) {
    uint64_t sum = 0;
    for (int i = threadIdx.x % 32; i < kAllWarps; i += 32) sum += values[i];
    return warp_sum(sum);
  }
  __device__ static uint64_t max_of(const uint64_t* values) {
    uint64_t largest = 0;
    for (int i = threadIdx.x % 32; i < kAllWarps; i += 32) largest = max(largest, values[i]);
    return warp_max(largest);
  }

  struct Sums {
    uint64_t a, b;
  };
  /// Sums over all threads of the cluster.
  __device__ Sums sums(uint64_t a, uint64_t b) {
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
    return max_of(memory.best);
  }

  /// A token that is at the rank, from 1, of the warps' best: at least so many tokens of the row are it or precede it.
  /// @param rank 1 … kAllWarps
  __device__ uint64_t bar(int rank) {
    constexpr int kSharers = kThreads / kAllWarps;
    const int candidate = int(threadIdx.x) / kSharers;
    const uint64_t mine = memory.best[candidate];
    int before = 0;
#pragma unroll 8
    for (int i = int(threadIdx.x) % kSharers; i < kAllWarps; i += kSharers) {
      const uint64_t other = memory.best[i];
      before += other > mine || (other == mine && i < candidate);
    }
    for (int step = kSharers / 2; step > 0; step /= 2) before += __shfl_xor_sync(~0u, before, step);
    __syncthreads();  // everybody has read the last bar
    if (before == rank - 1) memory.bar = mine;
    __syncthreads();
    return memory.bar;
  }

  RowMemory& memory;
  /// This block's elements [padded], those with ids from `first` on.
  float* x;
  int block, first, count, padded;

  /// Whether the slice is on its way into x since the kernel began.
  bool arriving = false;
  /// Whether block 0's list was used.
  bool listed = false;

 private:
  int turn_ = 0;
};

/// Puts the tokens from `last` up to, but without, `limit` into block 0's list, in any order.
class Collector {
 public:
  /// Nothing is collected from this word on.
  static constexpr uint64_t kNothing = uint64_t(0xFF800000u) << 32;  // +infinity

  __device__ Collector(ClusterRow& row, uint64_t last, uint64_t limit) : last_(last), limit_(limit), least_(word_value(last)) {
    if (last == kNothing) return;
    if (row.listed) {
      row.sync();  // block 0 has read the list
      if (row.block == 0 && threadIdx.x == 0) row.memory.list_count = 0;
      row.sync();
    }
    row.listed = true;
    count_ = cooperative_groups::this_cluster().map_shared_rank(&row.memory.list_count, 0);
    list_ = cooperative_groups::this_cluster().map_shared_rank(row.memory.list, 0);
  }

  __device__ void offer(const float (&v)[4], int id) {
    if (fmaxf(fmaxf(v[0], v[1]), fmaxf(v[2], v[3])) < least_) return;
    for (int i = 0; i < 4; ++i) {
      const uint64_t word = rank_word(v[i], id + i);
      if (word < last_ || word >= limit_) continue;
      ++found;
      const int at = atomicAdd(count_, 1);
      if (at < kListCapacity) list_[at] = word;
    }
  }

  /// By this thread, also those for which there was no room.
  uint32_t found = 0;

 private:
  uint64_t last_, limit_;
  float least_;
  int* count_ = nullptr;
  uint64_t* list_ = nullptr;
};

}  // namespace detinfer::sampler
