// Accuracy of the contract's scalar functions against long double, over the whole range in which they are used, and the
// exact values that the contract relies on.
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "core/numerics.h"
#include "kernels/attention/weight.h"
#include "tests/native/check.h"

namespace detinfer::testing {
namespace {

double relative_error(double value, long double exact) { return double(std::fabs((value - exact) / exact)); }

/// |value - exact| in units of the last place of a float (or of the least subnormal).
double float_ulps(float value, long double exact) {
  int exponent;
  std::frexp(double(exact), &exponent);
  return double(std::fabs(value - exact) / std::ldexp(1.0L, std::max(exponent, -125) - 24));
}

void bf16_rounds_to_nearest_even() {
  CHECK_EQ(to_bf16(1.00390625f).bits, 0x3F80);  // halfway, to even
  CHECK_EQ(to_bf16(1.01171875f).bits, 0x3F82);
  CHECK_EQ(to_bf16(bits_float(0x3F808001u)).bits, 0x3F81);
  CHECK_EQ(to_bf16(-0.0f).bits, 0x8000);
  CHECK_EQ(to_bf16(std::numeric_limits<float>::max()).bits, 0x7F80);
  CHECK_EQ(to_bf16(std::numeric_limits<float>::quiet_NaN()).bits, 0x7FFF);
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const bf16 x{uint16_t(i)};
    if ((i & 0x7FFF) <= 0x7F80) CHECK_EQ(to_bf16(to_float(x)).bits, x.bits);
  }
}

void exp2_is_accurate() {
  double worst = 0;
  for (int64_t i = 0; i <= 4'000'000; ++i) {
    const float x = float(-126.0 + 254.0 * double(i) / 4'000'000);
    if (x >= 128.0f) continue;
    worst = std::max(worst, relative_error(exp2_f32(x), std::exp2((long double)x)));
  }
  CHECK_MESSAGE(worst < 3.4e-6, "worst relative error " << worst);
  for (int n = -126; n < 128; ++n) CHECK_EQ(exp2_f32(float(n)), std::ldexp(1.0f, n));
  CHECK_EQ(exp2_f32(-200.0f), std::ldexp(1.0f, -126));
  CHECK_EQ(exp2_f32(-INFINITY), std::ldexp(1.0f, -126));
}

void exp_is_accurate() {
  double worst = 0;
  for (uint32_t high = 0; high < 2; ++high) {
    // Every 61st float of each sign up to the ends of the range, so that all magnitudes are met.
    for (uint32_t u = 0; u < 0x42D00000u; u += 61) {
      const float x = bits_float(u | high << 31);
      if (x > 88.7f || x < -103.9f) continue;
      worst = std::max(worst, float_ulps(exp_f32(x), std::exp((long double)x)));
    }
  }
  CHECK_MESSAGE(worst < 1.1, "worst error " << worst << " ulp");
  CHECK_EQ(exp_f32(0.0f), 1.0f);
  CHECK_EQ(exp_f32(-0.0f), 1.0f);
  CHECK_EQ(exp_f32(-INFINITY), 0.0f);
  CHECK_EQ(exp_f32(-104.1f), 0.0f);
  CHECK_EQ(exp_f32(INFINITY), INFINITY);
  CHECK_EQ(exp_f32(88.9f), INFINITY);
  CHECK(std::isnan(exp_f32(NAN)));
}

void log_is_accurate() {
  double worst = 0;
  std::mt19937_64 random(1);
  auto meet = [&](double x) {
    const long double exact = std::log((long double)x);
    if (exact == 0.0L) {
      CHECK_EQ(log_f64(x), 0.0);
      return;
    }
    worst = std::max(worst, relative_error(log_f64(x), exact));
  };
  for (int i = 0; i < 2'000'000; ++i) {
    uint64_t u = random() >> 1;
    if (u >= 0x7FF0000000000000ull) continue;
    meet(bits_double(u));                                       // every binade, subnormals too
    meet(1.0 + std::ldexp(double(int64_t(random())), -63 - i % 40));  // both sides of 1
    meet((double(uint32_t(random())) + 0.5) * 0x1p-32);         // the arguments of the sampling noise
    meet(double(1 + (random() >> 8)) * 0x1p-40);                // sums of masses
  }
  CHECK_MESSAGE(worst < 2.3e-16, "worst relative error " << worst);
  CHECK_EQ(log_f64(1.0), 0.0);
  CHECK_EQ(log_f64(0.0), -INFINITY);
  CHECK_EQ(log_f64(INFINITY), INFINITY);
  CHECK(std::isnan(log_f64(-1.0)));
}

void exp_f64_is_accurate() {
  double worst = 0;
  for (int i = 0; i <= 2'000'000; ++i) {
    const double x = -40.0 + 80.0 * i / 2'000'000 + 1e-9;
    worst = std::max(worst, relative_error(exp_f64(x), std::exp((long double)x)));
  }
  CHECK_MESSAGE(worst < 4e-16, "worst relative error " << worst);
  CHECK_EQ(exp_f64(0.0), 1.0);
}

void sincos_is_accurate() {
  // Angles of rotary embeddings: a position below 2^24 times an inverse frequency in (0, 1].
  double worst = 0;
  std::mt19937_64 random(2);
  for (int i = 0; i < 2'000'000; ++i) {
    const double inverse = std::exp(-double(random() % 20000) / 1000.0);
    const double x = double(random() % (1u << random() % 25)) * inverse;
    const SinCos value = sincos_f64(x);
    worst = std::max(worst, double(std::fabs(value.sin - std::sin((long double)x))));
    worst = std::max(worst, double(std::fabs(value.cos - std::cos((long double)x))));
  }
  CHECK_MESSAGE(worst < 2.5e-16, "worst absolute error " << worst);
  CHECK_EQ(sincos_f64(0.0).sin, 0.0);
  CHECK_EQ(sincos_f64(0.0).cos, 1.0);
}

void attention_weight_rounds_almost_correctly() {
  // w(x) must be bf16(2^x), or the neighbour where 2^x lies within 2.3e-7 (relative) of a rounding boundary.
  long differing = 0;
  for (int64_t i = 0; i < 6'000'000; ++i) {
    const float x = float(-126.5 + 135.4 * double(i) / 6'000'000);
    const uint32_t bits = attention_weight_bits(x);
    if (x < -126.0f) {
      CHECK_EQ(bits, 0u);
      continue;
    }
    const long double exact = std::exp2((long double)x);
    const long double value = to_float(bf16{uint16_t(bits)});
    int exponent;
    std::frexp(double(exact), &exponent);
    const long double half = std::ldexp(1.0L, exponent - 9);
    const long double beyond = std::fabs(value - exact) - half;
    CHECK_MESSAGE(beyond <= 2.4e-7L * exact, "w(" << x << ") misses by " << double(beyond / exact));
    differing += beyond > 0;
  }
  CHECK_EQ(attention_weight_bits(0.0f), 0x3F80u);
  CHECK_EQ(attention_weight_bits(-0.0f), 0x3F80u);
  CHECK_EQ(attention_weight_bits(8.0f), 0x4380u);
  CHECK_EQ(attention_weight_bits(-1.0f), 0x3F00u);
  CHECK_EQ(attention_weight_bits(-126.0f), 0x0080u);
  CHECK_EQ(attention_weight_bits(-INFINITY), 0u);
  CHECK_EQ(attention_weight_bits(NAN), 0x7FFFu);
  CHECK_EQ(attention_weight_bits(128.0f), 0x7F80u);
  CHECK_EQ(attention_weight_bits(3e38f), 0x7F80u);
  CHECK_EQ(attention_weight_bits(127.0f), 0x7F00u);
  CHECK_MESSAGE(differing < 6000, differing << " of 6,000,000 are not the nearest");
}

void noise_is_finite_and_keyed() {
  // By an independent implementation that agrees with the published vector murmur3_32("test") = 0xBA6BD213.
  CHECK_EQ(murmur3_words(0, 0, 0, 0), 0x8134CDF8u);
  CHECK_EQ(murmur3_words(42, 0, 7, 1), 0x860D65ECu);
  CHECK_EQ(murmur3_words(0xFFFFFFFFu, 0xFFFFFFFFu, 4095, 151935), 0xCE04FE8Bu);
  double sum = 0, largest = -100, smallest = 100;
  const int count = 1'000'000;
  for (int i = 0; i < count; ++i) {
    const double noise = gumbel_noise(42, 0, 7, uint32_t(i));
    CHECK(std::isfinite(noise));
    sum += noise;
    largest = std::max(largest, noise);
    smallest = std::min(smallest, noise);
  }
  // The mean of a standard Gumbel variable is Euler's constant, its standard deviation 1.28.
  CHECK_MESSAGE(std::fabs(sum / count - 0.5772) < 0.01, "mean " << sum / count);
  CHECK(largest < 22.9 && smallest > -3.15);
  CHECK(gumbel_noise(42, 0, 7, 1) != gumbel_noise(43, 0, 7, 1));
  CHECK(gumbel_noise(42, 0, 7, 1) != gumbel_noise(42, 1, 7, 1));
  CHECK(gumbel_noise(42, 0, 7, 1) != gumbel_noise(42, 0, 8, 1));
}

void mass_is_exact_at_its_ends() {
  CHECK_EQ(fixed_mass(0.0f), uint64_t(1) << 40);
  CHECK_EQ(fixed_mass(-INFINITY), uint64_t(0));
  CHECK_EQ(fixed_mass(-30.0f), uint64_t(0));
}

}  // namespace

extern const TestTable kNumericsTests = {
    "numerics",
    {{"bf16 rounds to nearest even", bf16_rounds_to_nearest_even},
     {"exp2 is accurate", exp2_is_accurate},
     {"exp is accurate", exp_is_accurate},
     {"log is accurate", log_is_accurate},
     {"exp in f64 is accurate", exp_f64_is_accurate},
     {"sin and cos are accurate", sincos_is_accurate},
     {"attention's weights round almost correctly", attention_weight_rounds_almost_correctly},
     {"sampling noise is finite and keyed", noise_is_finite_and_keyed},
     {"masses are exact at their ends", mass_is_exact_at_its_ends}}};

}  // namespace detinfer::testing
