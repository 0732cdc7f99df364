#include "kernels/rope/rope_table.h"

#include "core/thread_pool.h"

namespace detinfer {
namespace {

constexpr double kTwoPi = 6.283185307179586;
constexpr int64_t kGrainPositions = 256;

double llama3_scaled(const RopeSpec& spec, double frequency) {
  const double wavelength = kTwoPi / frequency;
  if (wavelength < spec.original_context / spec.high_freq_factor) return frequency;
  if (wavelength > spec.original_context / spec.low_freq_factor) return frequency / spec.factor;
  const double smooth = (spec.original_context / wavelength - spec.low_freq_factor) /
                        (spec.high_freq_factor - spec.low_freq_factor);
  return (1.0 - smooth) * frequency / spec.factor + smooth * frequency;
}

}  // namespace

std::vector<double> rope_frequencies(const RopeSpec& spec, int head_dim) {
  std::vector<double> frequencies(head_dim / 2);
  const double log_theta = log_f64(spec.theta);
  for (int i = 0; i < head_dim / 2; ++i) {
    const double frequency = exp_f64(-log_theta * (double(2 * i) / double(head_dim)));
    frequencies[i] = spec.type == RopeType::kLlama3 ? llama3_scaled(spec, frequency) : frequency;
  }
  return frequencies;
}

void fill_rope_tables(ThreadPool& pool, const std::vector<double>& frequencies, int positions, float* cos, float* sin) {
  const int64_t pairs = int64_t(frequencies.size());
  pool.parallel_for(positions, kGrainPositions, [&](int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end; ++position) {
      for (int64_t i = 0; i < pairs; ++i) {
        const SinCos angle = sincos_f64(double(position) * frequencies[i]);
        cos[position * pairs + i] = float(angle.cos);
        sin[position * pairs + i] = float(angle.sin);
      }
    }
  });
}

}  // namespace detinfer
