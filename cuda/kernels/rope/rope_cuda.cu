#include "kernels/rope/rope_cuda.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/launch.cuh"
#include "kernels/rope/rope_head.cuh"

namespace detinfer {
namespace {

constexpr int kMaxThreads = 256;
/// Up to this many rows every head has threads of its own.
constexpr int kFewRows = 256;

struct RopeKernelArgs {
  RopeArgs rope;
  PagedKvLayout layout;
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
  // Uploaded: see core/launch.cuh.
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
