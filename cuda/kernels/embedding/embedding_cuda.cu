#include <algorithm>

#include "core/launch.cuh"
#include "kernels/embedding/embedding_cuda.h"

namespace detinfer {
namespace {

constexpr int kThreads = 128;

/// Block (i, j) copies words j · kThreads · kWords … of row i.
/// @param drawn not null: an embedding, whose table no kernel writes
template <class Word, int kWords, bool kEmbedding>
__global__ void __launch_bounds__(kThreads) copy_rows_kernel(const Word* from, const int32_t* indices,
                                                             const int32_t* drawn, int words, Word* to) {
  let_next_start();
  const int row = blockIdx.x, first = blockIdx.y * kThreads * kWords + threadIdx.x;
  // Brought by a copy: see core/launch.cuh.
  int index = indices[row];
  Word values[kWords];
  const auto load = [&] {
    const Word* const source = from + int64_t(index) * words;
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      if (first + i * kThreads < words) values[i] = source[first + i * kThreads];
    }
  };
  const bool early = kEmbedding && index >= 0;
  if (early) load();
  wait_for_inputs();
  if (!early) {
    if (kEmbedding) index = drawn[-1 - index];
    load();
  }
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    if (first + i * kThreads < words) to[int64_t(row) * words + first + i * kThreads] = values[i];
  }
}

/// Few rows are spread over many blocks; of many, each thread has several words on their way.
constexpr int kFewRows = 256;

template <class Word, bool kEmbedding>
void copy_rows(const bf16* from, const int32_t* indices, const int32_t* drawn, int count, int n, bf16* to,
               cudaStream_t stream) {
  if (count == 0) return;
  const int words = n / int(sizeof(Word) / sizeof(bf16)), per_thread = count <= kFewRows ? 1 : 4;
  const dim3 grid(count, (words + kThreads * per_thread - 1) / (kThreads * per_thread));
  auto* const kernel = per_thread == 1 ? copy_rows_kernel<Word, 1, kEmbedding> : copy_rows_kernel<Word, 4, kEmbedding>;
  launch(kernel, grid, kThreads, 0, stream, reinterpret_cast<const Word*>(from), indices, drawn, words,
         reinterpret_cast<Word*>(to));
}

}  // namespace

void embedding_cuda(const DeviceMatrix& table, const int32_t* ids, int count, const int32_t* drawn, bf16* y,
                    cudaStream_t stream) {
  copy_rows<uint4, true>(table.data, ids, drawn, count, table.k, y, stream);
}

void gather_rows_cuda(const bf16* x, const int32_t* rows, int count, int n, bf16* y, cudaStream_t stream) {
  if (n % 8 == 0) {
    copy_rows<uint4, false>(x, rows, nullptr, count, n, y, stream);
  } else {
    copy_rows<bf16, false>(x, rows, nullptr, count, n, y, stream);
  }
}

}  // namespace detinfer
