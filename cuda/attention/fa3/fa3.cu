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

class Fa3Attention : public AttentionBackend {
 public:
  Fa3Attention(const PagedKvLayout& kv, int heads, int64_t pool_pages, const AttentionLimits& limits)
      : kv_(kv),
        heads_(heads),
        pool_pages_(pool_pages),
        limits_(limits),
        layout_(kv, heads, limits),
        multiprocessors_(current_multiprocessors()),
        // A block may look one round past the last decode record before it knows that there is none.
        device_plan_(CudaMemory::kDevice, layout_.words + int64_t(2 * multiprocessors_) * layout_.split_words),
        staging_{{CudaMemory::kPinned, layout_.words}, {CudaMemory::kPinned, layout_.words}},
        partial_rules_(CudaMemory::kDevice, int64_t(limits.decode_splits) * heads),
        partial_sums_(CudaMemory::kDevice, int64_t(limits.decode_splits) * heads * kv.head_dim),
        counters_(CudaMemory::kDevice, int64_t(limits.slices) * kv.kv_heads),
        queue_(CudaMemory::kDevice, 2) {
    CUDA_CHECK(cudaMemset(device_plan_.data(), 0, PlanLayout::kHeaderWords * sizeof(int32_t)));
    CUDA_CHECK(cudaMemset(counters_.data(), 0, size_t(limits.slices) * kv.kv_heads * sizeof(int)));
    CUDA_CHECK(cudaMemset(queue_.data(), 0, 2 * sizeof(int)));
    // The memsets are done before any stream looks.
    CUDA_CHECK(cudaDeviceSynchronize());
  }

  void plan(const AttentionSlice* slices, int count, cudaStream_t stream) override {
    turn_ ^= 1;
    copied_[turn_].wait();
    int32_t* const from = staging_[turn_].data();
    plan_ = fa3::make_plan(layout_, kv_, limits_, slices, count, from);
    auto upload = [&](int64_t at, int64_t words) {
      if (words == 0) return;
      CUDA_CHECK(cudaMemcpyAsync(device_plan_.data() + at, from + at, size_t(words) * sizeof(int32_t),
                                 cudaMemcpyHostToDevice, stream));
    };
    upload(0, PlanLayout::kHeaderWords + int64_t(plan_.splits) * layout_.split_words);
    upload(layout_.tiles_at, int64_t(plan_.tiles) * int64_t(sizeof(fa3::PrefillTile) / sizeof(int32_t)));
    upload(layout_.pages_at, plan_.pages);
    copied_[turn_].record(stream);
    if (std::getenv("DETINFER_PRINT_PLAN") != nullptr) {
      std::fputs(fa3::to_string(layout_, plan_, from).c_str(), stderr);
    }
  }

 private:
  void launch(const bf16* q, const bf16* keys, const bf16* values, bf16* out, float* out_f32,
              cudaStream_t stream) const override {
    const int dim = kv_.head_dim, group = heads_ / kv_.kv_heads, page_shift = log2_of(kv_.page_size);
    const float scale = attention_scale(dim);
    const int64_t pool_rows = pool_pages_ * kv_.kv_heads * kv_.page_size;
    const int pool_box = std::min(kv_.page_size, kBlockKeys);
    fa3::TensorMaps maps;
    maps.keys = tensor_map_2d(keys, dim, pool_rows, dim, 64, pool_box);
    maps.values = tensor_map_2d(values, dim, pool_rows, dim, 64, pool_box);
    if (plan_.tiles > 0) {
      maps.queries = tensor_map_3d(q, dim, heads_, plan_.rows, 64, group, layout_.tile_positions);
      fa3::PrefillArgs args;
      args.tiles = reinterpret_cast<const fa3::PrefillTile*>(device_plan_.data() + layout_.tiles_at);
      args.pages = device_plan_.data() + layout_.pages_at;
      args.tile_count = plan_.tiles;
      args.heads = heads_;
      args.kv_heads = kv_.kv_heads;
      args.page_shift = page_shift;
      args.scale = scale;
      args.out = out;
      args.out_f32 = out_f32;
      fa3::launch_prefill(dim, maps, args, stream);
    }
    if (plan_.splits > 0) {
      fa3::DecodeArgs args;
      args.plan = device_plan_.data();
      args.split_words = layout_.split_words;
      args.q = q;
      args.out = out;
      args.out_f32 = out_f32;
      args.partial_rules = partial_rules_.data();
      args.partial_sums = partial_sums_.data();
      args.counters = counters_.data();
      args.queue = queue_.data();
      args.heads = heads_;
      args.kv_heads = kv_.kv_heads;
      args.page_shift = page_shift;
      args.scale = scale;
      fa3::launch_decode(dim, maps, args, stream);
    }
  }

  PagedKvLayout kv_;
  int heads_;
  int64_t pool_pages_;
  AttentionLimits limits_;
  PlanLayout layout_;
  int multiprocessors_;
  CudaArray<int32_t> device_plan_;
  CudaArray<int32_t> staging_[2];
  CudaEvent copied_[2];
  int turn_ = 0;
  CudaArray<float2> partial_rules_;
  CudaArray<float> partial_sums_;
  CudaArray<int> counters_;
  CudaArray<int> queue_;
  fa3::Plan plan_;
};

}  // namespace

std::unique_ptr<AttentionBackend> make_fa3(const PagedKvLayout& kv, int heads, int64_t pool_pages,
                                           const AttentionLimits& limits) {
  fa3::check_supported(kv, heads);
  return std::make_unique<Fa3Attention>(kv, heads, pool_pages, limits);
}

}  // namespace detinfer
