// The producing warps of decoding.
#pragma once

#include "attention/decode/shared.cuh"

namespace detinfer::attention {

template <template <int, int> class LoaderOf, int D, int kOctets>
class DecodeProducer {
  using Shared = DecodeShared<D, kOctets>;
  using Loader = LoaderOf<D, kOctets>;

 public:
  __device__ __forceinline__ DecodeProducer(const typename Loader::Source& source, const DecodeArgs& args,
                                            uint8_t* memory, int warp)
      : args_(args),
        memory_(memory),
        warp_(warp),
        lane_(threadIdx.x % 32),
        loader_(source, args, memory, warp) {}

  __device__ __forceinline__ void run() {
    // The plan was uploaded, see core/launch.cuh, and behind all work that wrote to the pool, but that of this
    // step, which only makes the newest keys and values. Where they are made here, nothing of the pool is waited for.
    Record record = read(blockIdx.x);
    bool waits = rotates() && record.exists;
    if (!waits) wait_unless_idle(record.exists);
    for (; record.exists; waits = false) {
      // Asked for long before it is needed.
      int taken = 0;
      if (!waits) taken = take();
      hand_over(record.task);
      const int blocks = (record.task.keys + kBlockKeys - 1) / kBlockKeys;
      load_tiles(false, record.row, blocks);
      load_tiles(true, record.row, blocks);
      if (waits) {
        wait_for_inputs();
        taken = take();
      }
      record = read(int(gridDim.x) + tell(taken));
    }
    hand_over({});
    if (warp_ == 0) leave();
  }

 private:
  struct Record {
    bool exists;
    DecodeTask task;
    /// Lane i knows where the split's chunk i begins in the pool, seen as a matrix of head_dim columns; at most 32.
    int row;
  };

  /// The pair of split and KV head of a number.
  __device__ __forceinline__ Record read(int number) const {
    // Not one after the other: the record may be stale memory when there is no such split.
    const int count = __ldg(args_.plan), index = number / args_.kv_heads, kv_head = number - index * args_.kv_heads;
    const int32_t* const from = args_.plan + PlanLayout::kHeaderWords + int64_t(index) * args_.split_words;
    const int4 a = __ldg(reinterpret_cast<const int4*>(from)), b = __ldg(reinterpret_cast<const int4*>(from) + 1);
    const int offset = lane_ << loader_.chunk_shift(), key = a.z * kSplitKeys + offset;
    const int page = __ldg(from + kSplitWords + (min(offset, kSplitKeys - 1) >> args_.page_shift));
    const int row = ((page * args_.kv_heads + kv_head) << args_.page_shift) + (key & ((1 << args_.page_shift) - 1));
    DecodeTask task = {a.x, a.y, a.z, a.w, b.x, b.y, kv_head, b.w, -1};
    if (rotates() && task.split == task.splits - 1) {
      const int last = task.keys - 1, shift = loader_.chunk_shift();
      task.new_row = __shfl_sync(~0u, row, last >> shift) + (last & ((1 << shift) - 1));
    }
    return {index < count, task, row};
  }

  __device__ __forceinline__ bool rotates() const { return args_.rope.qkv != nullptr; }

  /// Asks the queue for a number. @return it, to the first warp's lane 0
  __device__ __forceinline__ int take() const { return warp_ == 0 && lane_ == 0 ? atomicAdd(args_.queue, 1) : 0; }

  __device__ __forceinline__ void hand_over(const DecodeTask& task) {
    if (warp_ == 0) loader_.hand_over(task, slots_);
    slots_.advance();
  }

  __device__ __forceinline__ void load_tiles(bool values, int row, int blocks) {
    for (int j = 0; j < blocks; ++j, ring_.advance()) loader_.load_tile(values, row, j, ring_);
  }

  /// @param taken of the first warp's lane 0 @return the same to all
  __device__ __forceinline__ int tell(int taken) {
    if constexpr (Loader::kWarps == 1) {
      return __shfl_sync(~0u, taken, 0);
    } else {
      // Nobody can be two splits ahead of another.
      auto* const word = reinterpret_cast<volatile int*>(memory_ + Shared::kTaken) + turn_;
      turn_ ^= 1;
      if (warp_ == 0 && lane_ == 0) *word = taken;
      named_barrier_sync(3, Loader::kWarps * 32);
      return *word;
    }
  }

  /// Counts the block out, if it had work; the last one readies the queue for the next launch.
  __device__ __forceinline__ void leave() const {
    const int pairs = __ldg(args_.plan) * args_.kv_heads, busy_blocks = min(pairs, int(gridDim.x));
    if (int(blockIdx.x) >= busy_blocks) return;
    if (lane_ == 0 && atomicAdd(args_.queue + 1, 1) == busy_blocks - 1) args_.queue[0] = args_.queue[1] = 0;
  }

  const DecodeArgs& args_;
  uint8_t* const memory_;
  const int warp_, lane_;
  Loader loader_;
  RingPosition<Shared::kStages> ring_;
  RingPosition<Shared::kSlots> slots_;
  int turn_ = 0;
};

}  // namespace detinfer::attention
