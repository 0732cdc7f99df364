#include "attention/fa3/fa3.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "attention/fa3/decode.cuh"
#include "attention/fa3/kernels.cuh"
#include "attention/fa3/prefill.cuh"
#include "core/cuda_memory.cuh"
#include "core/tensor_map.cuh"

namespace detinfer {
namespace {

using fa3::PlanLayout;

int current_multiprocessors() {
  int device = 0, count = 0, major = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  if (major != 9) {
    throw Error(ErrorCode::kUnsupported,
                "attention backend fa3 needs a Hopper GPU (compute capability 9.0); choose another attention backend");
  }
  return count;
}

int log2_of(int power) {
  int shift = 0;
  while ((1 << shift) < power) ++shift;
  return shift;
}

}  // namespace

struct Fa3Attention::State {
  State(const PagedKvLayout& kv, int heads, int64_t pool_pages, const AttentionLimits& limits)
      : kv(kv),
        heads(heads),
        pool_pages(pool_pages),
        limits(limits),
        layout(kv, heads, limits),
        multiprocessors(current_multiprocessors()),
        // A block may look one round past the last decode record before it knows that there is none.
        device_plan(CudaMemory::kDevice, layout.words + int64_t(2 * multiprocessors) * layout.split_words),
        staging{{CudaMemory::kPinned, layout.words}, {CudaMemory::kPinned, layout.words}},
        partial_rules(CudaMemory::kDevice, int64_t(limits.decode_splits) * heads),
        partial_sums(CudaMemory::kDevice, int64_t(limits.decode_splits) * heads * kv.head_dim),
        counters(CudaMemory::kDevice, int64_t(limits.slices) * kv.kv_heads),
        queue(CudaMemory::kDevice, 2) {
    CUDA_CHECK(cudaMemset(device_plan.data(), 0, PlanLayout::kHeaderWords * sizeof(int32_t)));
    CUDA_CHECK(cudaMemset(counters.data(), 0, size_t(limits.slices) * kv.kv_heads * sizeof(int)));
    CUDA_CHECK(cudaMemset(queue.data(), 0, 2 * sizeof(int)));
    // The memsets are done before any stream looks.
    CUDA_CHECK(cudaDeviceSynchronize());
  }

  PagedKvLayout kv;
  int heads;
  int64_t pool_pages;
  AttentionLimits limits;
  PlanLayout layout;
  int multiprocessors;
  CudaArray<int32_t> device_plan;
  CudaArray<int32_t> staging[2];
  CudaEvent copied[2];
  int turn = 0;
  CudaArray<float2> partial_rules;
  CudaArray<float> partial_sums;
  CudaArray<int> counters;
  CudaArray<int> queue;
  fa3::Plan plan;
};

Fa3Attention::Fa3Attention(const PagedKvLayout& kv, int heads, int64_t pool_pages, const AttentionLimits& limits) {
  fa3::check_supported(kv, heads);
  state_ = std::make_unique<State>(kv, heads, pool_pages, limits);
}

Fa3Attention::~Fa3Attention() = default;

void Fa3Attention::plan(const AttentionSlice* slices, int count, cudaStream_t stream) {
  State& s = *state_;
  s.turn ^= 1;
  s.copied[s.turn].wait();
  int32_t* const from = s.staging[s.turn].data();
  s.plan = fa3::make_plan(s.layout, s.kv, s.limits, slices, count, from);
  auto upload = [&](int64_t at, int64_t words) {
    if (words == 0) return;
    CUDA_CHECK(cudaMemcpyAsync(s.device_plan.data() + at, from + at, size_t(words) * sizeof(int32_t),
                               cudaMemcpyHostToDevice, stream));
  };
  upload(0, PlanLayout::kHeaderWords + int64_t(s.plan.splits) * s.layout.split_words);
  upload(s.layout.tiles_at, int64_t(s.plan.tiles) * int64_t(sizeof(fa3::PrefillTile) / sizeof(int32_t)));
  upload(s.layout.pages_at, s.plan.pages);
  s.copied[s.turn].record(stream);
  if (std::getenv("DETINFER_PRINT_PLAN") != nullptr) {
    std::fputs(fa3::to_string(s.layout, s.plan, from).c_str(), stderr);
  }
}

void Fa3Attention::run(const bf16* q, const bf16* keys, const bf16* values, bf16* out, cudaStream_t stream) const {
  launch(q, keys, values, out, nullptr, stream);
}

void Fa3Attention::run_f32(const bf16* q, const bf16* keys, const bf16* values, float* out, cudaStream_t stream) const {
  launch(q, keys, values, nullptr, out, stream);
}

void Fa3Attention::launch(const bf16* q, const bf16* keys, const bf16* values, bf16* out, float* out_f32,
                          cudaStream_t stream) const {
  const State& s = *state_;
  const int dim = s.kv.head_dim, group = s.heads / s.kv.kv_heads, page_shift = log2_of(s.kv.page_size);
  const float scale = attention_scale(dim);
  const int64_t pool_rows = s.pool_pages * s.kv.kv_heads * s.kv.page_size;
  const int pool_box = std::min(s.kv.page_size, kBlockKeys);
  fa3::TensorMaps maps;
  maps.keys = tensor_map_2d(keys, dim, pool_rows, dim, 64, pool_box);
  maps.values = tensor_map_2d(values, dim, pool_rows, dim, 64, pool_box);
  if (s.plan.tiles > 0) {
    maps.queries = tensor_map_3d(q, dim, s.heads, s.plan.rows, 64, group, s.layout.tile_positions);
    fa3::PrefillArgs args;
    args.tiles = reinterpret_cast<const fa3::PrefillTile*>(s.device_plan.data() + s.layout.tiles_at);
    args.pages = s.device_plan.data() + s.layout.pages_at;
    args.tile_count = s.plan.tiles;
    args.heads = s.heads;
    args.kv_heads = s.kv.kv_heads;
    args.page_shift = page_shift;
    args.scale = scale;
    args.out = out;
    args.out_f32 = out_f32;
    fa3::launch_prefill(dim, maps, args, stream);
  }
  if (s.plan.splits > 0) {
    fa3::DecodeArgs args;
    args.plan = s.device_plan.data();
    args.split_words = s.layout.split_words;
    args.q = q;
    args.out = out;
    args.out_f32 = out_f32;
    args.partial_rules = s.partial_rules.data();
    args.partial_sums = s.partial_sums.data();
    args.counters = s.counters.data();
    args.queue = s.queue.data();
    args.heads = s.heads;
    args.kv_heads = s.kv.kv_heads;
    args.page_shift = page_shift;
    args.scale = scale;
    fa3::launch_decode(dim, maps, args, stream);
  }
}

}  // namespace detinfer
