// What a GPU backend of attention does. Every one gives the bits of attention_cpu; they differ in the GPUs that they run
// on and in their schedules.
#pragma once

#include <memory>
#include <string>

#include "attention/support.h"

typedef struct CUstream_st* cudaStream_t;

namespace detinfer {

/// One is made per engine, with the device memory of its plan and workspace, on the current device.
class AttentionBackend {
 public:
  virtual ~AttentionBackend() = default;

  /// Plans a step and sends the plan to the device, in the stream's order. Returns at once; at most the copy of the last
  /// but one plan is waited for. Not part of a captured graph: it is what changes between replays.
  /// @param slices in host memory, `pages` too; rows that no slice covers are left alone
  /// @throws Error kInvalidRequest if the step exceeds the limits
  virtual void plan(const AttentionSlice* slices, int count, cudaStream_t stream) = 0;

  /// Attends in one layer. Captured in a graph, its part for slices of one row follows the plan that the device holds at
  /// the time of replay; slices of more rows are launched as planned now, so a graph is for decoding alone.
  /// @param q [rows][heads][head_dim] @param keys, values the layer's pools @param out [rows][heads][head_dim]
  void run(const bf16* q, const bf16* keys, const bf16* values, bf16* out, cudaStream_t stream) const {
    launch(q, keys, values, out, nullptr, stream);
  }

  /// The same before rounding to bf16, for tests. @param out [rows][heads][head_dim]
  void run_f32(const bf16* q, const bf16* keys, const bf16* values, float* out, cudaStream_t stream) const {
    launch(q, keys, values, nullptr, out, stream);
  }

 private:
  /// @param out, out_f32 one of them, the other null
  virtual void launch(const bf16* q, const bf16* keys, const bf16* values, bf16* out, float* out_f32,
                      cudaStream_t stream) const = 0;
};

/// @param heads query heads @param pool_pages pages of every layer's pool
/// @throws Error kUnsupported as check_attention_backend() and for another GPU, kOutOfMemory, kEngineFailed
std::unique_ptr<AttentionBackend> make_attention_backend(const std::string& name, const PagedKvLayout& kv, int heads,
                                                         int64_t pool_pages, const AttentionLimits& limits);

}  // namespace detinfer
