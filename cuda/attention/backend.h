// What a GPU backend of attention does. Every one gives the bits of attention_cpu; they differ in the GPUs that they run
// on and in their schedules.
#pragma once

#include <memory>
#include <string>

#include "attention/support.h"
#include "kernels/rope/rope.h"

typedef struct CUstream_st* cudaStream_t;

namespace detinfer {

/// One is made per engine, with the device memory of its plan and workspace, on the current device.
class AttentionBackend {
 public:
  explicit AttentionBackend(const PagedKvLayout& kv) : kv_(kv) {}
  virtual ~AttentionBackend() = default;

  /// Plans a step and sends the plan to the device, in the stream's order. Returns at once; at most the copy of the last
  /// but one plan is waited for. Not part of a captured graph: it is what changes between replays. run() may read the plan
  /// early, so a graph or a kernel of launch_behind_all() (core/launch.cuh) has to come between.
  /// @param slices in host memory, `pages` too; rows that no slice covers are left alone
  /// @throws Error kInvalidRequest if the step exceeds the limits
  virtual void plan(const AttentionSlice* slices, int count, cudaStream_t stream) = 0;

  /// Rope and attention in one layer. Captured in a graph, the part for slices of one row follows the plan that the device
  /// holds at the time of replay; slices of more rows are launched as planned now, so a graph is for decoding alone. What
  /// was in the pools before the step's plan may be read ahead of the work in front of this call.
  /// @param rope pointers to the device's memory; `layout` is not read, `q` may be left unwritten, as may keys and values
  /// of rows that no slice covers @param out [rows][heads][head_dim]
  void run(const RopeArgs& rope, bf16* out, cudaStream_t stream) const;

  /// Attention alone, behind rope. @param q [rows][heads][head_dim] @param keys, values the layer's pools
  /// @param out [rows][heads][head_dim]
  void attend(const bf16* q, const bf16* keys, const bf16* values, bf16* out, cudaStream_t stream) const {
    launch(after_rope(q, keys, values), out, nullptr, stream);
  }

  /// The same before rounding to bf16, for tests. @param out [rows][heads][head_dim]
  void attend_f32(const bf16* q, const bf16* keys, const bf16* values, float* out, cudaStream_t stream) const {
    launch(after_rope(q, keys, values), nullptr, out, stream);
  }

 protected:
  const PagedKvLayout kv_;

 private:
  static RopeArgs after_rope(const bf16* q, const bf16* keys, const bf16* values);

  /// Whether launch() takes care of rope for a step of so many rows as it is planned.
  virtual bool includes_rope(int) const { return false; }
  /// @param rope without `qkv`, where rope is done: q, keys and values are what it gave
  /// @param out, out_f32 one of them, the other null
  virtual void launch(const RopeArgs& rope, bf16* out, float* out_f32, cudaStream_t stream) const = 0;
};

/// @param heads query heads @param pool_pages pages of every layer's pool
/// @throws Error kUnsupported as check_attention_backend() and for another GPU, kOutOfMemory, kEngineFailed
std::unique_ptr<AttentionBackend> make_attention_backend(const std::string& name, const PagedKvLayout& kv, int heads,
                                                         int64_t pool_pages, const AttentionLimits& limits);

}  // namespace detinfer
