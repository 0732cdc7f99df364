#include "attention/flashinfer/flashinfer.h"

#include "attention/device_plan.cuh"
#include "attention/flashinfer/kernels.cuh"
#include "attention/split_workspace.cuh"
#include "core/launch.cuh"

namespace detinfer {
namespace {

/// Columns of a kernel that has room for a head's: the ones behind them are zeros, which change no chain.
int columns_of(int head_dim) { return head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : 256; }

/// f(integral constant) for a kernel's columns.
template <class Function>
auto with_columns(int columns, const Function& f) {
  if (columns == 64) return f(std::integral_constant<int, 64>());
  if (columns == 128) return f(std::integral_constant<int, 128>());
  return f(std::integral_constant<int, 256>());
}

int tile_rows_of(int columns) {
  return with_columns(columns, [](auto d) { return flashinfer::tile_rows<decltype(d)::value>(); });
}

int total_floats_of(int columns) {
  return with_columns(columns, [](auto d) { return flashinfer::total_floats<decltype(d)::value>(); });
}

class FlashinferAttention : public AttentionBackend {
 public:
  FlashinferAttention(const PagedKvLayout& kv, int heads, const AttentionLimits& limits)
      : AttentionBackend(kv),
        heads_(heads),
        columns_(columns_of(kv.head_dim)),
        // A block may look one round past the last decode record before it knows that there is none.
        plan_(kv, heads, limits, hopper_multiprocessors("flashinfer"), tile_rows_of(columns_),
              multiprocessor_count()),
        splits_(kv, heads, limits),
        totals_(CudaMemory::kDevice, int64_t(multiprocessor_count()) * total_floats_of(columns_)),
        handed_(CudaMemory::kDevice, int64_t(multiprocessor_count()) * flashinfer::kPrefillWarps) {
    CUDA_CHECK(cudaMemset(handed_.data(), 0, size_t(multiprocessor_count()) * flashinfer::kPrefillWarps * sizeof(int)));
    CUDA_CHECK(cudaDeviceSynchronize());
  }

  void plan(const AttentionSlice* slices, int count, cudaStream_t stream) override {
    plan_.make(slices, count, stream);
  }

 private:
  bool includes_rope(int rows) const override { return attention::decode_includes_rope(plan_.planned(), rows); }
  void launch(const RopeArgs& rope, bf16* out, float* out_f32, cudaStream_t stream) const override {
    with_columns(columns_, [&](auto d) {
      constexpr int kColumns = decltype(d)::value;
      if (plan_.planned().tiles > 0) {
        flashinfer::launch_prefill<kColumns>(prefill_args(rope, out, out_f32), stream);
      }
      if (plan_.planned().splits > 0) {
        const auto args = attention::decode_args(kv_, heads_, plan_, splits_, rope, out, out_f32);
        flashinfer::launch_decode<kColumns>(args, stream);
      }
    });
  }

  flashinfer::PrefillArgs prefill_args(const RopeArgs& rope, bf16* out, float* out_f32) const {
    flashinfer::PrefillArgs args;
    args.tiles = plan_.tiles();
    args.tile_count = plan_.planned().tiles;
    args.pieces = plan_.pieces();
    args.shares = plan_.shares();
    args.share_count = plan_.planned().shares;
    args.pages = plan_.pages();
    args.q = rope.q;
    args.keys = rope.keys;
    args.values = rope.values;
    args.out = out;
    args.out_f32 = out_f32;
    args.heads = heads_;
    args.kv_heads = kv_.kv_heads;
    args.group = heads_ / kv_.kv_heads;
    args.group_inverse = 65535 / args.group + 1;
    args.kv_heads_inverse = unsigned(0x7FFFFFFF / kv_.kv_heads) + 1;
    args.head_dim = kv_.head_dim;
    args.page_shift = plan_.layout().page_shift;
    args.scale = attention_scale(kv_.head_dim);
    args.totals = totals_.data();
    args.handed = handed_.data();
    return args;
  }

  int heads_;
  /// Of the kernel.
  int columns_;
  DevicePlan plan_;
  SplitWorkspace splits_;
  CudaArray<float> totals_;
  CudaArray<int> handed_;
};

}  // namespace

std::unique_ptr<AttentionBackend> make_flashinfer(const PagedKvLayout& kv, int heads, const AttentionLimits& limits) {
  return std::make_unique<FlashinferAttention>(kv, heads, limits);
}

}  // namespace detinfer
