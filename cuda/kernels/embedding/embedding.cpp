#include "kernels/embedding/embedding.h"

#include <algorithm>

#include "core/thread_pool.h"

namespace detinfer {
namespace {

constexpr int64_t kGrainElements = 8192;

}  // namespace

void embedding_reference(const int32_t* ids, int rows, const bf16* table, int k, bf16* y) {
  for (int row = 0; row < rows; ++row) std::copy_n(table + int64_t(ids[row]) * k, k, y + int64_t(row) * k);
}

void embedding_cpu(ThreadPool& pool, const int32_t* ids, int rows, const PackedMatrix& table, bf16* y) {
  pool.parallel_for(rows, std::max<int64_t>(1, kGrainElements / table.k), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int id = ids[row];
      bf16* out = y + row * table.k;
      for (int i = 0; i < table.k; ++i) out[i] = table.data[table.offset(id, i)];
    }
  });
}

}  // namespace detinfer
