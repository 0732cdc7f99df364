// The attention backend fa3 for Hopper (sm_90a): TMA, wgmma for prefill, mma.sync for decoding, over a paged KV cache.
// Its bits are those of attention_cpu.
#pragma once

#include <memory>

#include "kernels/attention/attention_cuda.h"

typedef struct CUstream_st* cudaStream_t;

namespace detinfer {

class Fa3Attention {
 public:
  /// Reserves the device memory of a plan and the workspace of split decoding, on the current device.
  /// @param heads query heads; at most 16 per KV head @param kv head_dim 64 or 128, page_size 16·2^i
  /// @param pool_pages pages of every layer's pool
  /// @throws Error kUnsupported, kOutOfMemory, kEngineFailed
  Fa3Attention(const PagedKvLayout& kv, int heads, int64_t pool_pages, const AttentionLimits& limits);
  ~Fa3Attention();

  /// Plans a step and sends the plan to the device, in the stream's order. Returns at once; at most the copy of the last
  /// but one plan is waited for. Not part of a captured graph: it is what changes between replays.
  /// @param slices in host memory, `pages` too; rows that no slice covers are left alone
  /// @throws Error kInvalidRequest if the step exceeds the limits
  void plan(const AttentionSlice* slices, int count, cudaStream_t stream);

  /// Attends in one layer. Captured in a graph, its part for slices of one row follows the plan that the device holds at
  /// the time of replay; slices of more rows are launched as planned now, so a graph is for decoding alone.
  /// @param q [rows][heads][head_dim] @param keys, values the layer's pools @param out [rows][heads][head_dim]
  void run(const bf16* q, const bf16* keys, const bf16* values, bf16* out, cudaStream_t stream) const;

  /// The same before rounding to bf16, for tests. @param out [rows][heads][head_dim]
  void run_f32(const bf16* q, const bf16* keys, const bf16* values, float* out, cudaStream_t stream) const;

 private:
  struct State;
  void launch(const bf16* q, const bf16* keys, const bf16* values, bf16* out, float* out_f32,
              cudaStream_t stream) const;

  std::unique_ptr<State> state_;
};

}  // namespace detinfer
