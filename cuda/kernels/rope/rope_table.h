// Angles of the rotary embedding. Inverse frequencies, cos and sin are computed on the host in f64 by the project's own
// functions and stored as f32, so that every device rotates by the same bits.
#pragma once

#include <vector>

#include "core/numerics.h"

namespace detinfer {

class ThreadPool;

enum class RopeType { kDefault, kLlama3 };

struct RopeSpec {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  // For kLlama3: wavelengths above original_context / low_freq_factor are stretched by `factor`, those below
  // original_context / high_freq_factor are kept, and those between are interpolated.
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_context = 8192.0;
};

/// Inverse frequencies of the head_dim / 2 rotated pairs, after scaling.
std::vector<double> rope_frequencies(const RopeSpec& spec, int head_dim);

/// cos and sin of position · frequency. @param cos, sin [positions][frequencies.size()]
void fill_rope_tables(ThreadPool& pool, const std::vector<double>& frequencies, int positions, float* cos, float* sin);

}  // namespace detinfer
