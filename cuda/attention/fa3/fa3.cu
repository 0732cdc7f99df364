#include "attention/fa3/fa3.h"

#include <algorithm>

#include "attention/device_plan.cuh"
#include "attention/fa3/kernels.cuh"
#include "attention/fa3/prefill.cuh"
#include "attention/split_workspace.cuh"
#include "core/tensor_map.cuh"

namespace detinfer {
namespace {

class Fa3Attention : public AttentionBackend {
 public:
  Fa3Attention(const PagedKvLayout& kv, int heads, int64_t pool_pages, const AttentionLimits& limits)
      : AttentionBackend(kv),
        heads_(heads),
        pool_pages_(pool_pages),
        // A block may look one round past the last decode record before it knows that there is none.
        plan_(kv, heads, limits, hopper_multiprocessors("fa3")),
        splits_(kv, heads, limits) {}

  void plan(const AttentionSlice* slices, int count, cudaStream_t stream) override {
    plan_.make(slices, count, stream);
  }

 private:
  bool includes_rope(int rows) const override { return attention::decode_includes_rope(plan_.planned(), rows); }
  void launch(const RopeArgs& rope, bf16* out, float* out_f32, cudaStream_t stream) const override {
    const int dim = kv_.head_dim, group = heads_ / kv_.kv_heads;
    const int64_t pool_rows = pool_pages_ * kv_.kv_heads * kv_.page_size;
    const int pool_box = std::min(kv_.page_size, kBlockKeys);
    fa3::TensorMaps maps;
    maps.keys = tensor_map_2d(rope.keys, dim, pool_rows, dim, 64, pool_box);
    maps.values = tensor_map_2d(rope.values, dim, pool_rows, dim, 64, pool_box);
    const AttentionPlan& plan = plan_.planned();
    if (plan.tiles > 0) {
      maps.queries = tensor_map_3d(rope.q, dim, heads_, plan.rows, 64, group, plan_.layout().tile_positions);
      fa3::PrefillArgs args;
      args.tiles = plan_.tiles();
      args.pages = plan_.pages();
      args.tile_count = plan.tiles;
      args.heads = heads_;
      args.kv_heads = kv_.kv_heads;
      args.page_shift = plan_.layout().page_shift;
      args.scale = attention_scale(dim);
      args.out = out;
      args.out_f32 = out_f32;
      fa3::launch_prefill(dim, maps, args, stream);
    }
    if (plan.splits > 0) {
      fa3::launch_decode(maps, attention::decode_args(kv_, heads_, plan_, splits_, rope, out, out_f32), stream);
    }
  }

  int heads_;
  int64_t pool_pages_;
  DevicePlan plan_;
  SplitWorkspace splits_;
};

}  // namespace

std::unique_ptr<AttentionBackend> make_fa3(const PagedKvLayout& kv, int heads, int64_t pool_pages,
                                           const AttentionLimits& limits) {
  return std::make_unique<Fa3Attention>(kv, heads, pool_pages, limits);
}

}  // namespace detinfer
