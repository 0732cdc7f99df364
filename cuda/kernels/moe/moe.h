// A mixture of experts: each row goes through the top_k experts that its router logits choose.
//   choice   The top_k largest logits, ties to the lower id; a NaN counts as -infinity. This order is that of ranks.
//   weights  m = the largest logit, e_i = exp_f32(x_i - m). total = the e_i added to 0 one after another: those chosen
//            in order of rank if `normalize`, else all in order of id. w_i = e_i / total.
//   experts  Each is a linear of its own, over the rows that chose it.
//   combine  acc = 0; for the ranks in order: acc = fma(w_j, f32(y_j), acc); rounded once to bf16.
#pragma once

#include <cstdint>

#include "core/numerics.h"

namespace detinfer {

class ThreadPool;
struct PackedMatrix;

constexpr int kMaxExperts = 512;
constexpr int kMaxTopK = 32;

struct RouteSpec {
  int experts = 0;
  int top_k = 0;
  /// The weights of the chosen experts add up to 1.
  bool normalize = false;
};

/// Which experts the rows of a pass go to; arrays in the device's memory. An entry is one (row, rank); entries are
/// grouped by expert.
struct ExpertRoutes {
  /// [rows][top_k], in order of rank
  int32_t* experts = nullptr;
  /// [rows][top_k]
  float* weights = nullptr;
  /// [experts + 1]: the entries of expert e are first[e] … first[e + 1] - 1
  int32_t* first = nullptr;
  /// [rows · top_k]: the row of each entry, ascending within an expert
  int32_t* row = nullptr;
  /// [rows][top_k]: where (row, rank) lies among the entries
  int32_t* place = nullptr;
};

/// Arrays that a layer works in.
struct ExpertWork {
  /// [rows][experts]
  float* logits = nullptr;
  ExpertRoutes routes;
  /// [rows · top_k][intermediate] and [rows · top_k][hidden]
  bf16* activated = nullptr;
  bf16* outputs = nullptr;
};

/// A logit as choice and weights see it.
DETINFER_HD float route_logit(float logit) { return logit == logit ? logit : bits_float(0xFF800000u); }

/// @throws Error kUnsupported for more experts or a larger top_k than kernels are made for, kInvalidModel for a top_k
/// above the number of experts
void check_route_spec(const RouteSpec& spec);

/// The readable references. @param logits [rows][experts]
void route_experts_reference(const float* logits, int rows, const RouteSpec& spec, const ExpertRoutes& routes);
/// y[entry] = W_e · x, e being the entry's expert.
/// @param x gather: [rows][k], read at the entry's row; else [rows · top_k][k] in order of entries
/// @param w [experts · n][k], the experts' matrices one below the other @param y [rows · top_k][n]
void expert_linear_reference(const bf16* x, int rows, const RouteSpec& spec, const ExpertRoutes& routes, bool gather,
                             const bf16* w, int n, int k, bf16* y);
/// @param y [rows · top_k][n] in order of entries @param out [rows][n]
void combine_experts_reference(const bf16* y, int rows, int n, const RouteSpec& spec, const ExpertRoutes& routes,
                               bf16* out);

/// A whole layer. @param gate_up of each expert, rows of gate and up in groups (kernels/mlp/swiglu.h)
/// @param out [rows][hidden]
void experts_cpu(ThreadPool& pool, const bf16* x, int rows, const RouteSpec& spec, const PackedMatrix& router,
                 const PackedMatrix& gate_up, const PackedMatrix& down, const ExpertWork& work, bf16* out);

/// Its parts.
void route_experts_cpu(ThreadPool& pool, const float* logits, int rows, const RouteSpec& spec,
                       const ExpertRoutes& routes);
void expert_linear_cpu(ThreadPool& pool, const bf16* x, int rows, const RouteSpec& spec, const ExpertRoutes& routes,
                       bool gather, const PackedMatrix& w, bf16* y);
/// SwiGLU of the linear of gathered rows. @param w of each expert, rows of gate and up in groups (kernels/mlp/swiglu.h)
/// @param y [rows · top_k][n / 2]
void expert_linear_swiglu_cpu(ThreadPool& pool, const bf16* x, int rows, const RouteSpec& spec,
                              const ExpertRoutes& routes, const PackedMatrix& w, bf16* y);
void combine_experts_cpu(ThreadPool& pool, const bf16* y, int rows, int n, const RouteSpec& spec,
                         const ExpertRoutes& routes, bf16* out);

}  // namespace detinfer
