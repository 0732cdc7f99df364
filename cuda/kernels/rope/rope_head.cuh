// Norm and rotation of one head by lanes of a warp, for the kernels that do it.
#pragma once

#include "core/bf16_vector.cuh"
#include "kernels/rope/rope.h"

namespace detinfer {

/// One head: each lane holds 8 consecutive elements, a group of the norm's sum.
/// @tparam kLanes at least head_dim / 8, a power of two
template <int kLanes>
class HeadLane {
 public:
  __device__ HeadLane(const RopeArgs& args, int head_dim)
      : groups_(head_dim / kVector), lane_(threadIdx.x % kLanes), head_dim_(head_dim), eps_(args.eps) {
    if (args.q_norm != nullptr && used()) q_norm_ = *reinterpret_cast<const uint4*>(args.q_norm + first());
    if (args.k_norm != nullptr && used()) k_norm_ = *reinterpret_cast<const uint4*>(args.k_norm + first());
  }

  /// False for the lanes that are left over where head_dim / 8 is no power of two.
  __device__ bool used() const { return lane_ < groups_; }
  __device__ int first() const { return lane_ * kVector; }

  /// Reads the angles of a position for this lane's elements.
  __device__ void load_angles(const RopeArgs& args, int64_t position) {
    if (!used()) return;
    const int64_t at = position * (head_dim_ / 2) + (lower() ? lane_ : lane_ - groups_ / 2) * kVector;
#pragma unroll
    for (int i = 0; i < kVector; i += 4) {
      *reinterpret_cast<float4*>(cos_ + i) = *reinterpret_cast<const float4*>(args.cos + at + i);
      *reinterpret_cast<float4*>(sin_ + i) = *reinterpret_cast<const float4*>(args.sin + at + i);
    }
  }

  /// All lanes of the warp together.
  __device__ uint4 norm(const uint4& head, bool query) const {
    float x[kVector], w[kVector];
    unpack(head, x);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum = __fmaf_rn(x[i], x[i], sum);
#pragma unroll
    for (int distance = 1; distance < kLanes; distance *= 2) sum = sum + __shfl_xor_sync(~0u, sum, distance);
    const float r = __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(sum, float(head_dim_)) + eps_));
#pragma unroll
    for (int i = 0; i < kVector; ++i) x[i] = x[i] * r;
    unpack(pack(x), x);
    unpack(query ? q_norm_ : k_norm_, w);
#pragma unroll
    for (int i = 0; i < kVector; ++i) x[i] = w[i] * x[i];
    return pack(x);
  }

  /// All lanes of the warp together.
  __device__ uint4 rotate(const uint4& head) const {
    const int other_lane = lower() ? lane_ + groups_ / 2 : lane_ - groups_ / 2;
    const uint4 partner = make_uint4(
        __shfl_sync(~0u, head.x, other_lane, kLanes), __shfl_sync(~0u, head.y, other_lane, kLanes),
        __shfl_sync(~0u, head.z, other_lane, kLanes), __shfl_sync(~0u, head.w, other_lane, kLanes));
    float x[kVector], other[kVector];
    unpack(head, x);
    unpack(partner, other);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      // x1·cos - x2·sin below, x2·cos + x1·sin above
      const float across = other[i] * sin_[i];
      x[i] = lower() ? x[i] * cos_[i] - across : x[i] * cos_[i] + across;
    }
    return pack(x);
  }

 private:
  __device__ bool lower() const { return lane_ < groups_ / 2; }

  const int groups_, lane_, head_dim_;
  const float eps_;
  uint4 q_norm_ = {0, 0, 0, 0}, k_norm_ = {0, 0, 0, 0};
  alignas(16) float cos_[kVector] = {}, sin_[kVector] = {};
};

}  // namespace detinfer
