#include <algorithm>
#include <cmath>

#include "core/per_isa.h"
#include "core/thread_pool.h"
#include "kernels/linear/linear.h"
#include "kernels/moe/moe.h"

namespace detinfer {
namespace {

/// Rows that one thread routes or combines at a time.
constexpr int64_t kGrainRows = 4;
/// Columns that one thread combines at a time where rows are few.
constexpr int kGrainColumns = 1024;

void route_row(const float* logits, const RouteSpec& spec, int32_t* experts, float* weights) {
  // The best so far, in order. A later expert must be larger than the last of them: it loses a tie.
  float best[kMaxTopK];
  int count = 0;
  for (int id = 0; id < spec.experts; ++id) {
    const float x = route_logit(logits[id]);
    if (count == spec.top_k && !(x > best[count - 1])) continue;
    int rank = count < spec.top_k ? count++ : count - 1;
    for (; rank > 0 && x > best[rank - 1]; --rank) {
      best[rank] = best[rank - 1];
      experts[rank] = experts[rank - 1];
    }
    best[rank] = x;
    experts[rank] = id;
  }

  float total = 0.0f;
  for (int rank = 0; rank < spec.top_k; ++rank) {
    weights[rank] = exp_f32(best[rank] - best[0]);
    if (spec.normalize) total += weights[rank];
  }
  if (!spec.normalize) {
    for (int id = 0; id < spec.experts; ++id) total += exp_f32(route_logit(logits[id]) - best[0]);
  }
  for (int rank = 0; rank < spec.top_k; ++rank) weights[rank] /= total;
}

/// Puts the entries in order of experts: a counting sort, which keeps rows in order.
void group_by_expert(int entries, const RouteSpec& spec, const ExpertRoutes& routes) {
  int32_t* const first = routes.first;
  std::fill(first, first + spec.experts + 1, 0);
  for (int i = 0; i < entries; ++i) ++first[routes.experts[i] + 1];
  for (int expert = 0; expert < spec.experts; ++expert) first[expert + 1] += first[expert];
  int32_t next[kMaxExperts];
  std::copy_n(first, spec.experts, next);
  for (int i = 0; i < entries; ++i) {
    const int32_t entry = next[routes.experts[i]]++;
    routes.row[entry] = i / spec.top_k;
    routes.place[i] = entry;
  }
}

void add_weighted(const bf16* y, float weight, int n, float* acc) {
  for (int i = 0; i < n; ++i) acc[i] = std::fma(weight, to_float(y[i]), acc[i]);
}

void round_sums(const float* acc, int n, bf16* out) {
  for (int i = 0; i < n; ++i) out[i] = to_bf16(acc[i]);
}

}  // namespace

void experts_cpu(ThreadPool& pool, const bf16* x, int rows, const RouteSpec& spec, const PackedMatrix& router,
                 const PackedMatrix& gate_up, const PackedMatrix& down, const ExpertWork& work, bf16* out) {
  linear_cpu(pool, x, rows, router, nullptr, work.logits);
  route_experts_cpu(pool, work.logits, rows, spec, work.routes);
  expert_linear_swiglu_cpu(pool, x, rows, spec, work.routes, gate_up, work.activated);
  expert_linear_cpu(pool, work.activated, rows, spec, work.routes, false, down, work.outputs);
  combine_experts_cpu(pool, work.outputs, rows, down.n / spec.experts, spec, work.routes, out);
}

void route_experts_cpu(ThreadPool& pool, const float* logits, int rows, const RouteSpec& spec,
                       const ExpertRoutes& routes) {
  pool.parallel_for(rows, kGrainRows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * spec.top_k;
      route_row(logits + row * spec.experts, spec, routes.experts + at, routes.weights + at);
    }
  });
  group_by_expert(rows * spec.top_k, spec, routes);
}

void combine_experts_cpu(ThreadPool& pool, const bf16* y, int rows, int n, const RouteSpec& spec,
                         const ExpertRoutes& routes, bf16* out) {
  const int parts = (n + kGrainColumns - 1) / kGrainColumns;
  pool.parallel_for(int64_t(rows) * parts, kGrainRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / parts;
      const int first = int(i % parts) * kGrainColumns, columns = std::min(kGrainColumns, n - first);
      float acc[kGrainColumns] = {};
      for (int64_t at = row * spec.top_k; at < (row + 1) * spec.top_k; ++at) {
        run_per_isa<add_weighted>(y + int64_t(routes.place[at]) * n + first, routes.weights[at], columns,
                                  static_cast<float*>(acc));
      }
      run_per_isa<round_sums>(static_cast<const float*>(acc), columns, out + row * n + first);
    }
  });
}

}  // namespace detinfer
