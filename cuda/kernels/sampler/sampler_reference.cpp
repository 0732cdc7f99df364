#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/sampler/adjust.h"

namespace detinfer {
namespace {

std::vector<float> divided(const float* x, int n, float temperature) {
  std::vector<float> y(x, x + n);
  if (temperature != 1.0f) {
    for (float& v : y) v = v / temperature;
  }
  return y;
}

/// Ids by descending x, ties by ascending id.
std::vector<int32_t> ordered_ids(const std::vector<float>& x) {
  std::vector<int32_t> ids(x.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return x[a] > x[b]; });
  return ids;
}

int32_t draw(const float* logits, int n, const SampleArgs& args) {
  std::vector<float> x(logits, logits + n);
  adjust_logits(args, n, x.data());
  if (!args.greedy) x = divided(x.data(), n, args.temperature);
  const std::vector<int32_t> ids = ordered_ids(x);
  if (args.greedy || x[ids[0]] == -std::numeric_limits<float>::infinity()) return ids[0];

  const Softmax softmax = softmax_reference(x.data(), n);
  const uint64_t limit = top_p_limit(args.top_p, softmax.total);
  double best = -std::numeric_limits<double>::infinity();
  int32_t token = n;
  uint64_t mass_before = 0;
  for (int rank = 0; rank < n; ++rank) {
    const int32_t id = ids[rank];
    const uint64_t mass = fixed_mass(x[id] - softmax.max);
    const bool kept =
        (args.top_k < 0 || rank < args.top_k) && mass_before <= limit && mass >= min_p_mass(args.min_p);
    mass_before += mass;
    if (!kept) continue;
    const double score = double(softmax.logprob(x[id])) +
                         gumbel_noise(args.key.seed_low, args.key.seed_high, args.key.position, uint32_t(id));
    if (score > best || (score == best && id < token)) {
      best = score;
      token = id;
    }
  }
  return token;
}

}  // namespace

void evaluate_row_reference(const float* logits, int n, RowRequest& request) {
  if (request.sample) request.token = draw(logits, n, *request.sample);
  const std::vector<float> x = divided(logits, n, request.logprob_temperature);
  const Softmax softmax = softmax_reference(x.data(), n);
  if (request.target >= 0) request.logprob = softmax.logprob(x[request.target]);
  if (request.sampled_logprob) request.logprob = softmax.logprob(x[request.token]);
  const std::vector<int32_t> ids = ordered_ids(x);
  for (int i = 0; i < request.top; ++i) {
    request.top_ids[i] = ids[i];
    request.top_logprobs[i] = softmax.logprob(x[ids[i]]);
  }
  for (int i = 0; i < request.token_id_count; ++i) {
    request.token_id_logprobs[i] = softmax.logprob(x[request.token_ids[i]]);
  }
}

}  // namespace detinfer
