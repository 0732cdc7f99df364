#include "attention/flashinfer/flashinfer.h"

#include "attention/device_plan.cuh"
#include "attention/flashinfer/kernel.cuh"
#include "attention/split_workspace.cuh"

namespace detinfer {
namespace {

using flashinfer::FlashinferArgs;

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
  return with_columns(columns, [](auto d) { return flashinfer::kTileRows<decltype(d)::value>; });
}

int total_floats_of(int columns) {
  return with_columns(columns, [](auto d) { return flashinfer::kTotalFloats<decltype(d)::value>; });
}

class FlashinferAttention : public AttentionBackend {
 public:
  FlashinferAttention(const PagedKvLayout& kv, int heads, const AttentionLimits& limits)
      : kv_(kv),
        heads_(heads),
        columns_(columns_of(kv.head_dim)),
        // A block may look two rounds past the last decode record before it knows that there is none.
        plan_(kv, heads, limits, 2 * hopper_multiprocessors("flashinfer"), tile_rows_of(columns_)),
        splits_(kv, heads, limits),
        totals_(CudaMemory::kDevice, int64_t(multiprocessor_count()) * total_floats_of(columns_)) {}

  void plan(const AttentionSlice* slices, int count, cudaStream_t stream) override {
    plan_.make(slices, count, stream);
  }

 private:
  void launch(const bf16* q, const bf16* keys, const bf16* values, bf16* out, float* out_f32,
              cudaStream_t stream) const override {
    flashinfer::StepArgs step;
    step.plan = plan_.words();
    step.split_words = plan_.layout().split_words;
    step.tiles = plan_.tiles();
    step.tile_count = plan_.planned().tiles;
    step.pages = plan_.pages();
    step.q = q;
    step.out = out;
    step.out_f32 = out_f32;
    step.partial_rules = splits_.rules();
    step.partial_sums = splits_.sums();
    step.counters = splits_.counters();
    step.queue = splits_.queue();
    step.heads = heads_;
    step.kv_heads = kv_.kv_heads;
    step.page_shift = plan_.layout().page_shift;
    step.scale = attention_scale(kv_.head_dim);
    // A step without work now may stand in a graph.
    const FlashinferArgs args = {step, keys, values, kv_.head_dim, totals_.data()};
    with_columns(columns_, [&](auto d) { flashinfer::launch_step<decltype(d)::value>(args, stream); });
  }

  PagedKvLayout kv_;
  int heads_;
  /// Of the kernel.
  int columns_;
  DevicePlan plan_;
  SplitWorkspace splits_;
  CudaArray<float> totals_;
};

}  // namespace

std::unique_ptr<AttentionBackend> make_flashinfer(const PagedKvLayout& kv, int heads, const AttentionLimits& limits) {
  return std::make_unique<FlashinferAttention>(kv, heads, limits);
}

}  // namespace detinfer
