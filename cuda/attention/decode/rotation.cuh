// What the consumers of decoding do where rope has not been applied: queries are normed and rotated on their way to shared
// memory. A sequence's last split gets the new key and value that way, too, and writes them to the pool for later steps.
#pragma once

#include "attention/decode/shared.cuh"
#include "kernels/rope/rope_head.cuh"

namespace detinfer::attention {

template <int D, int kOctets>
class DecodeRotation {
  using Shared = DecodeShared<D, kOctets>;
  static constexpr int kLanes = D / kVector, kWarpHeads = 32 / kLanes;

 public:
  /// Reads what no kernel writes.
  __device__ __forceinline__ DecodeRotation(const DecodeArgs& args, const DecodeTask& task)
      : args_(args), task_(task), lane_(args.rope, args.head_dim) {
    lane_.load_angles(args.rope, task.position);
  }

  /// By all consumers, who meet afterwards. Heads are dealt to lanes: the queries', then the new key and value.
  __device__ __forceinline__ void run(uint8_t* slot) const {
    const RopeArgs& rope = args_.rope;
    const int group = args_.heads / args_.kv_heads, count = group + (task_.new_row < 0 ? 0 : 2);
    const int64_t first = int64_t(task_.row) * (args_.heads + 2 * args_.kv_heads);
    for (int warp_head = threadIdx.x / 32 * kWarpHeads; warp_head < count; warp_head += kDecodeWarps * kWarpHeads) {
      const int i = warp_head + threadIdx.x % 32 / kLanes;
      const bool mine = i < count && lane_.used(), query = i < group, value = i > group;
      const int head = query ? task_.kv_head * group + i : args_.heads + value * args_.kv_heads + task_.kv_head;
      const uint4 x = mine ? load(rope.qkv + (first + head) * args_.head_dim) : make_uint4(0, 0, 0, 0);
      uint4 y = x;
      if (rope.q_norm != nullptr || rope.k_norm != nullptr) {
        const uint4 normed = lane_.norm(y, query);
        if ((query ? rope.q_norm : rope.k_norm) != nullptr) y = normed;
      }
      y = lane_.rotate(y);
      if (!mine) continue;
      if (value) y = x;
      const int to = query ? Shared::kQueries + i * Shared::kQueryRow : value ? Shared::kNewValue : Shared::kNewKey;
      *reinterpret_cast<uint4*>(slot + to + lane_.first() * 2) = y;
      if (query) continue;
      bf16* const pool = value ? rope.values : rope.keys;
      *reinterpret_cast<uint4*>(pool + int64_t(task_.new_row) * args_.head_dim + lane_.first()) = y;
    }
  }

 private:
  __device__ __forceinline__ uint4 load(const bf16* head) const {
    return *reinterpret_cast<const uint4*>(head + lane_.first());
  }

  const DecodeArgs& args_;
  const DecodeTask& task_;
  HeadLane<kLanes> lane_;
};

}  // namespace detinfer::attention
