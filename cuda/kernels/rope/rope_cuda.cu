#include "kernels/rope/rope_cuda.h"

#include <algorithm>
#include <string>

#include "core/bf16_vector.cuh"
#include "core/error.h"
#include "core/launch.cuh"

namespace detinfer {
namespace {

constexpr int kMaxThreads = 256;
/// Up to this many rows every head has threads of its own.
constexpr int kFewRows = 256;

struct RopeKernelArgs {
  RopeArgs rope;
  PagedKvLayout layout;
};

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

/// Block (i, ·) works on row i, each kLanes threads on kHeads heads of it: part, part + parts, …
template <int kLanes, int kHeads>
__global__ void __launch_bounds__(kMaxThreads) rope_kernel(const __grid_constant__ RopeKernelArgs kernel_args, int parts) {
  let_next_start();
  const RopeArgs& args = kernel_args.rope;
  const PagedKvLayout& layout = kernel_args.layout;
  const int dim = layout.head_dim, heads = args.heads, keys_end = heads + layout.kv_heads;
  const int all_heads = keys_end + layout.kv_heads;
  const int64_t row = blockIdx.x;
  const int part = (blockIdx.y * blockDim.x + threadIdx.x) / kLanes;
  // Brought by a copy: see core/launch.cuh.
  const int64_t slot = args.slots[row];
  HeadLane<kLanes> lane(args, dim);
  lane.load_angles(args, args.positions[row]);
  const int64_t page = slot / layout.page_size;
  const int in_page = int(slot - page * layout.page_size);
  wait_for_inputs();
  const bf16* const from = args.qkv + row * all_heads * dim + lane.first();
  uint4 x[kHeads];
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    const int head = part + i * parts;
    const bool mine = part < parts && head < all_heads && lane.used();
    x[i] = mine ? *reinterpret_cast<const uint4*>(from + head * dim) : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    const int head = part + i * parts;
    const bool mine = part < parts && head < all_heads && lane.used(), query = head < heads;
    uint4 y = x[i];
    if (args.q_norm != nullptr || args.k_norm != nullptr) {
      const uint4 normed = lane.norm(y, query);
      if ((query ? args.q_norm : args.k_norm) != nullptr) y = normed;
    }
    y = lane.rotate(y);
    if (!mine) continue;
    if (query) {
      *reinterpret_cast<uint4*>(args.q + (row * heads + head) * dim + lane.first()) = y;
    } else if (head < keys_end) {
      *reinterpret_cast<uint4*>(args.keys + layout.offset(page, head - heads, in_page, lane.first())) = y;
    } else {
      *reinterpret_cast<uint4*>(args.values + layout.offset(page, head - keys_end, in_page, lane.first())) = x[i];
    }
  }
}

template <int kLanes, int kHeads>
void launch_rope(const RopeKernelArgs& args, cudaStream_t stream) {
  const int all_heads = args.rope.heads + 2 * args.layout.kv_heads, parts = (all_heads + kHeads - 1) / kHeads;
  const int most = args.rope.rows <= kFewRows ? 128 : kMaxThreads;
  const int blocks = (parts * kLanes + most - 1) / most;
  const int threads = ((parts * kLanes + blocks - 1) / blocks + 31) / 32 * 32;
  launch(rope_kernel<kLanes, kHeads>, dim3(args.rope.rows, blocks), threads, 0, stream, args, parts);
}

template <int kLanes>
void launch_rope(const RopeKernelArgs& args, cudaStream_t stream) {
  if (args.rope.rows <= kFewRows) {
    launch_rope<kLanes, 1>(args, stream);
  } else {
    launch_rope<kLanes, 4>(args, stream);
  }
}

}  // namespace

void rope_cuda(const RopeArgs& args, const PagedKvLayout& layout, cudaStream_t stream) {
  const int dim = layout.head_dim;
  if (dim <= 0 || dim % 16 != 0 || dim > 256) {
    throw Error(ErrorCode::kUnsupported,
                "rope on a GPU works on heads whose size is a multiple of 16 up to 256, not " + std::to_string(dim));
  }
  if (args.rows == 0) return;
  const RopeKernelArgs kernel_args{args, layout};
  if (dim <= 64) {
    launch_rope<8>(kernel_args, stream);
  } else if (dim <= 128) {
    launch_rope<16>(kernel_args, stream);
  } else {
    launch_rope<32>(kernel_args, stream);
  }
}

}  // namespace detinfer
