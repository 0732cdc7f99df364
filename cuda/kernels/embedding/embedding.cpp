#include "kernels/embedding/embedding.h"

#include <algorithm>

#include "core/thread_pool.h"

namespace detinfer {
namespace {

constexpr int64_t kGrainElements = 8192;

}  // namespace

void gather_rows(ThreadPool& pool, const bf16* table, const int32_t* rows, int count, int n, bf16* y) {
  pool.parallel_for(count, std::max<int64_t>(1, kGrainElements / n), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::copy_n(table + int64_t(rows[i]) * n, n, y + i * n);
  });
}

void embedding_cpu(ThreadPool& pool, const PackedMatrix& table, const int32_t* ids, int count, bf16* y) {
  pool.parallel_for(count, std::max<int64_t>(1, kGrainElements / table.k), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      bf16* out = y + row * table.k;
      for (int i = 0; i < table.k; ++i) out[i] = table.data[table.offset(ids[row], i)];
    }
  });
}

}  // namespace detinfer
