#include "core/launch.cuh"
#include "kernels/sampler/row_draw.cuh"
#include "kernels/sampler/row_load.cuh"
#include "kernels/sampler/sampler_table.cuh"

namespace detinfer::sampler {
namespace {

/// The task's log-probabilities. @param best the best token of the row, which is loaded as it is reported
__device__ inline Softmax report(ClusterRow& row, const RowTask& task, const float* logits, uint64_t best) {
  const bool listed = task.top > 0 && task.top <= kAllWarps;
  const uint64_t last = listed ? row.bar(task.top) : Collector::kNothing;
  int found;
  const Softmax softmax = softmax_and_list(row, word_value(best), last, found);
  const float temperature = task.logprob_temperature;
  const int thread = row.block * kThreads + int(threadIdx.x);
  if (thread == 0 && task.target >= 0) {
    task.result->logprob = softmax.logprob(over(logits[task.target], temperature));
  }
  for (int i = thread; i < task.token_id_count; i += kAllWarps * 32) {
    task.token_id_logprobs[i] = softmax.logprob(over(logits[task.token_ids[i]], temperature));
  }
  if (task.top > 0) write_top(row, task, softmax, last, listed ? found : kListCapacity + 1);
  return softmax;
}

/// The work on one row, by a cluster. @return whether its elements are finite
__device__ inline bool evaluate(ClusterRow& row, const RowTask& task, const float* logits, int n, int32_t* drawn) {
  Softmax reported;
  uint64_t best = 0;
  if (task.reports || !task.samples) {
    best = load(row, logits, n, task.logprob_temperature, nullptr);
    if (best == kNotFinite) return false;
    if (task.reports) reported = report(row, task, logits, best);
    if (!task.samples) return true;
  }
  const bool shared = task.draws_from_reported();
  if (!shared) {
    best = load(row, logits, n, task.greedy ? 1.0f : task.temperature, &task);
    if (best == kNotFinite) return false;
  }
  int token = word_id(best);
  if (!task.greedy && word_value(best) > -kInfinity) {
    const DrawRules rules{task.key, task.top_k, task.top_p, task.min_mass};
    token = draw(row, n, best, shared ? &reported : nullptr, rules);
  }
  if (row.block == 0 && threadIdx.x == 0) {
    task.result->token = token;
    if (task.sampled_logprob) task.result->logprob = reported.logprob(over(logits[token], task.logprob_temperature));
    if (task.drawn_index >= 0) drawn[task.drawn_index] = token;
  }
  return true;
}

__global__ void __cluster_dims__(kBlocks) __launch_bounds__(kThreads, 2)
    sample_rows(const TableHeader* table, const float* logits, int n, int32_t* drawn) {
  extern __shared__ __align__(16) char shared[];
  let_next_start();
  wait_for_inputs();
  const int index = int(blockIdx.x) / kBlocks;
  // The whole table has room for the task even if the count turns out to be smaller.
  constexpr int kTaskWords = sizeof(RowTask) / sizeof(uint64_t);
  ClusterRow row(shared, n);
  uint64_t word = 0;
  if (threadIdx.x < kTaskWords) {
    word = reinterpret_cast<const uint64_t*>(reinterpret_cast<const RowTask*>(table + 1) + index)[threadIdx.x];
  }
  if (index >= table->count) return;
  logits += int64_t(index) * n;
  begin_load(row, logits, n);
  if (threadIdx.x < kTaskWords) reinterpret_cast<uint64_t*>(&row.memory.task)[threadIdx.x] = word;
  if (threadIdx.x == 0) row.memory.list_count = 0;
  row.sync();
  const RowTask& task = row.memory.task;
  const bool finite = evaluate(row, task, logits, n, drawn);
  if (row.block == 0 && threadIdx.x == 0) {
    task.result->finite = finite;
    // A later step may read it before the host knows that this one failed.
    if (!finite && task.samples && task.drawn_index >= 0) drawn[task.drawn_index] = 0;
  }
}

size_t shared_bytes(int vocab) {
  return sizeof(RowMemory) + size_t(ClusterRow::slice_size(vocab)) * sizeof(float);
}

}  // namespace

void prepare_sampler(int vocab) {
  int device = 0, most = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  if (shared_bytes(vocab) > size_t(most)) {
    throw Error(ErrorCode::kUnsupported, "the sampler cannot hold a vocabulary of " + std::to_string(vocab) +
                                             " tokens in the GPU's shared memory; run this model on a CPU");
  }
  CUDA_CHECK(cudaFuncSetAttribute(sample_rows, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
}

void launch_sampler(const TableHeader* table, const float* logits, int vocab, int rows, int32_t* drawn,
                    cudaStream_t stream) {
  launch(sample_rows, dim3(rows * kBlocks), dim3(kThreads), shared_bytes(vocab), stream, table, logits, vocab, drawn);
}

}  // namespace detinfer::sampler
