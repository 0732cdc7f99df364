#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/merge.h"
#include "kernels/attention/weight.h"
#include "kernels/mma16/mma16.h"

namespace detinfer {

float attention_scale(int head_dim) { return float(1.4426950408889634 / std::sqrt(double(head_dim))); }

void attention_reference(const bf16* q, const bf16* keys, const bf16* values, int position, int head_dim, float* out) {
  const float scale = attention_scale(head_dim);
  const bf16 one{0x3F80};
  bf16 ones[kStepTerms];
  std::fill(ones, ones + kStepTerms, one);

  float total_max = -INFINITY, total_sum = 0.0f;
  std::vector<float> total(head_dim, 0.0f), acc(head_dim);
  for (int split = 0; split <= position; split += kSplitKeys) {
    float running_max = -INFINITY, sum = 0.0f;
    std::fill(acc.begin(), acc.end(), 0.0f);
    const int split_end = std::min(split + kSplitKeys, position + 1);
    for (int block = split; block < split_end; block += kBlockKeys) {
      const int visible = std::min(kBlockKeys, split_end - block);
      float scores[kBlockKeys];
      for (int j = 0; j < visible; ++j) {
        scores[j] = 0.0f;
        for (int d = 0; d < head_dim; d += kStepTerms) {
          scores[j] = mma16(q + d, keys + int64_t(block + j) * head_dim + d, 1, scores[j]);
        }
      }
      const float block_max = *std::max_element(scores, scores + visible) * scale;
      const float new_max = next_max(running_max, block_max);
      const float alpha = exp2_f32(difference(running_max, new_max));
      // Masked keys and the values behind them are zeros, so that a step of 16 keys may end past the last one.
      bf16 weights[kBlockKeys] = {};
      for (int j = 0; j < visible; ++j) weights[j] = bf16{uint16_t(attention_weight_bits(fmaf(scores[j], scale, -new_max)))};
      sum = sum * alpha;
      for (int d = 0; d < head_dim; ++d) acc[d] = acc[d] * alpha;
      for (int j = 0; j < visible; j += kStepTerms) {
        sum = mma16(weights + j, ones, 1, sum);
        for (int d = 0; d < head_dim; ++d) {
          bf16 column[kStepTerms] = {};
          for (int i = 0; i < kStepTerms && j + i < visible; ++i) column[i] = values[int64_t(block + j + i) * head_dim + d];
          acc[d] = mma16(weights + j, column, 1, acc[d]);
        }
      }
      running_max = new_max;
    }
    merge_split(total_max, total_sum, total.data(), running_max, sum, acc.data(), head_dim);
  }
  const float inverse = 1.0f / total_sum;
  for (int d = 0; d < head_dim; ++d) out[d] = total[d] * inverse;
}

}  // namespace detinfer
