#include <algorithm>

#include "core/launch.cuh"
#include "kernels/embedding/embedding_cuda.h"

namespace detinfer {
namespace {

constexpr int kThreads = 128;

/// Block (i, j) copies words j · kThreads · kWords … of row i.
/// @param drawn for a negative index -1 - i, the index is drawn[i]
template <class Word, int kWords>
__global__ void __launch_bounds__(kThreads) copy_rows_kernel(const Word* from, const int32_t* indices,
                                                             const int32_t* drawn, int words, Word* to) {
  let_next_start();
  wait_for_inputs();
  const int row = blockIdx.x, first = blockIdx.y * kThreads * kWords + threadIdx.x, index = indices[row];
  const Word* const source = from + int64_t(index < 0 ? drawn[-1 - index] : index) * words;
  Word values[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    if (first + i * kThreads < words) values[i] = source[first + i * kThreads];
  }
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    if (first + i * kThreads < words) to[int64_t(row) * words + first + i * kThreads] = values[i];
  }
}

/// Few rows are spread over many blocks; of many, each thread has several words on their way.
constexpr int kFewRows = 256;

/// @param launch_kernel gets the kernel, its grid and its arguments
template <class Word, class Launch>
void copy_rows(const bf16* from, const int32_t* indices, const int32_t* drawn, int count, int n, bf16* to,
               const Launch& launch_kernel) {
  if (count == 0) return;
  const int words = n / int(sizeof(Word) / sizeof(bf16)), per_thread = count <= kFewRows ? 1 : 4;
  const dim3 grid(count, (words + kThreads * per_thread - 1) / (kThreads * per_thread));
  auto* const kernel = per_thread == 1 ? copy_rows_kernel<Word, 1> : copy_rows_kernel<Word, 4>;
  launch_kernel(kernel, grid, reinterpret_cast<const Word*>(from), indices, drawn, words, reinterpret_cast<Word*>(to));
}

}  // namespace

void embedding_cuda(const DeviceMatrix& table, const int32_t* ids, int count, const int32_t* drawn, bf16* y,
                    cudaStream_t stream) {
  // The first of a pass, so that those behind it may read what was uploaded: see core/launch.cuh.
  copy_rows<uint4>(table.data, ids, drawn, count, table.k, y, [=](auto* kernel, dim3 grid, auto... arguments) {
    launch_behind_all(kernel, grid, kThreads, stream, arguments...);
  });
}

void gather_rows_cuda(const bf16* x, const int32_t* rows, int count, int n, bf16* y, cudaStream_t stream) {
  const auto launch_early = [=](auto* kernel, dim3 grid, auto... arguments) {
    launch(kernel, grid, kThreads, 0, stream, arguments...);
  };
  if (n % 8 == 0) {
    copy_rows<uint4>(x, rows, nullptr, count, n, y, launch_early);
  } else {
    copy_rows<bf16>(x, rows, nullptr, count, n, y, launch_early);
  }
}

}  // namespace detinfer
