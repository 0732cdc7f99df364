#include <algorithm>

#include "core/per_isa.h"
#include "core/thread_pool.h"
#include "kernels/norm/rms_norm_row.h"

namespace detinfer {
namespace {

/// Elements worth a look at the pool's shared counter.
constexpr int64_t kGrainElements = 16384;

void add_row(bf16* residual, const bf16* delta, int n) {
  for (int i = 0; i < n; ++i) residual[i] = to_bf16(to_float(residual[i]) + to_float(delta[i]));
}

void norm_row(const bf16* x, int n, const bf16* weight, float eps, bf16* y) { rms_norm_row(x, n, weight, eps, y); }

template <class Row>
void for_rows(ThreadPool& pool, int rows, int n, const Row& row) {
  pool.parallel_for(rows, std::max<int64_t>(1, kGrainElements / n), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) row(i * n);
  });
}

}  // namespace

void rms_norm_cpu(ThreadPool& pool, const bf16* x, int rows, int n, const bf16* weight, float eps, bf16* y) {
  for_rows(pool, rows, n, [=](int64_t at) { run_per_isa<norm_row>(x + at, n, weight, eps, y + at); });
}

void add_rms_norm_cpu(ThreadPool& pool, bf16* residual, const bf16* delta, int rows, int n, const bf16* weight,
                      float eps, bf16* y) {
  for_rows(pool, rows, n, [=](int64_t at) {
    run_per_isa<add_row>(residual + at, delta + at, n);
    run_per_isa<norm_row>(static_cast<const bf16*>(residual + at), n, weight, eps, y + at);
  });
}

}  // namespace detinfer
