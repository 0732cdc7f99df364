#include "attention/triton/triton.h"

#include "attention/device_plan.cuh"
#include "attention/triton/kernel.cuh"
#include "attention/split_workspace.cuh"
#include "core/tensor_map.cuh"

namespace detinfer {
namespace {

/// The boxes that blocks.py brings keys and values in.
constexpr int kBoxRows = 16, kBoxColumns = 64;

class TritonAttention : public AttentionBackend {
 public:
  TritonAttention(const PagedKvLayout& kv, int heads, int64_t pool_pages, const AttentionLimits& limits)
      : AttentionBackend(kv),
        heads_(heads),
        pool_rows_(int(pool_pages * kv.kv_heads * kv.page_size)),
        plan_(kv, heads, limits, 0),
        prefill_("prefill_" + std::to_string(kv.head_dim)),
        decode_("decode_" + std::to_string(kv.head_dim)),
        decode_programs_(hopper_multiprocessors("triton") * decode_.programs_per_multiprocessor()),
        splits_(kv, heads, limits) {}

  void plan(const AttentionSlice* slices, int count, cudaStream_t stream) override {
    plan_.make(slices, count, stream);
  }

 private:
  void launch(const RopeArgs& rope, bf16* out, float* out_f32, cudaStream_t stream) const override {
    const PlanLayout& layout = plan_.layout();
    const int dim = kv_.head_dim;
    const float scale = attention_scale(dim);
    const int is_f32 = out_f32 != nullptr;
    void* const to = is_f32 ? static_cast<void*>(out_f32) : out;
    // Triton's descriptors are a map, two sizes and two strides.
    const int64_t row_stride = dim, column_stride = 1;
    const CUtensorMap key_map = tensor_map_2d(rope.keys, dim, pool_rows_, dim, kBoxColumns, kBoxRows);
    const CUtensorMap value_map = tensor_map_2d(rope.values, dim, pool_rows_, dim, kBoxColumns, kBoxRows);
    if (plan_.planned().tiles > 0) {
      prefill_.launch(plan_.planned().tiles * kv_.kv_heads, stream, plan_.tiles(), plan_.pages(), rope.q,
                      key_map, pool_rows_, dim, row_stride, column_stride,
                      value_map, pool_rows_, dim, row_stride, column_stride,
                      to, is_f32, heads_, kv_.kv_heads, layout.page_shift, scale);
    }
    if (plan_.planned().splits > 0) {
      decode_.launch(decode_programs_, stream, plan_.words(), layout.split_words, rope.q,
                     key_map, pool_rows_, dim, row_stride, column_stride,
                     value_map, pool_rows_, dim, row_stride, column_stride,
                     to, is_f32, reinterpret_cast<float*>(splits_.rules()), splits_.sums(), splits_.counters(),
                     splits_.queue(), heads_, kv_.kv_heads, layout.page_shift, scale);
    }
  }

  int heads_;
  /// Of a pool, seen as a matrix of head_dim columns.
  int pool_rows_;
  DevicePlan plan_;
  triton::Kernel prefill_, decode_;
  int decode_programs_;
  SplitWorkspace splits_;
};

}  // namespace

std::unique_ptr<AttentionBackend> make_triton(const PagedKvLayout& kv, int heads, int64_t pool_pages,
                                              const AttentionLimits& limits) {
  return std::make_unique<TritonAttention>(kv, heads, pool_pages, limits);
}

}  // namespace detinfer
